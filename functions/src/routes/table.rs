//! What a row of the table is, and how rows become a service.

use crate::invocation::surround;
use crate::request::body;
use crate::{App, Error};
use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use jobplane_protocol::ErrorCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// The methods that routes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Delete,
    Get,
    Patch,
    Post,
    Put,
}

impl Method {
    /// The name, as HTTP has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

/// Which tokens a route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Needs no token.
    Anyone,
    /// The operator's.
    Admin,
    /// The operator's or a worker's.
    AdminOrWorker,
    /// A tenant's key.
    Tenant,
    /// A worker's.
    Worker,
}

/// Makes the schema of a type.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a route answers when all is well.
#[derive(Clone, Copy)]
pub enum Answer {
    /// 204.
    Nothing,
    /// 200 and JSON of no fixed shape.
    Json,
    /// A status and a type.
    Typed(u16, SchemaOf),
}

/// One row: a method on a path, the function that it is deployed in, who may call it, and its handler.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, parameters in braces.
    pub path: &'static str,
    /// The deployed function, its binary and its file under `routes/`.
    pub function: &'static str,
    /// Which tokens it accepts.
    pub caller: Caller,
    /// The body that it takes.
    pub takes: Option<SchemaOf>,
    /// The query that it takes.
    pub query: Option<SchemaOf>,
    /// Whether it honours an `Idempotency-Key`.
    pub idempotent: bool,
    /// What it answers.
    pub answer: Answer,
    handler: MethodRouter<App>,
}

/// A row under construction: what is not said yet is absent.
fn row<H: Handler<T, App>, T: 'static>(
    method: Method,
    path: &'static str,
    function: &'static str,
    caller: Caller,
    handler: H,
) -> Route {
    let filter = match method {
        Method::Delete => MethodFilter::DELETE,
        Method::Get => MethodFilter::GET,
        Method::Patch => MethodFilter::PATCH,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
    };
    let answer = Answer::Nothing;
    Route {
        method,
        path,
        function,
        caller,
        takes: None,
        query: None,
        idempotent: false,
        answer,
        handler: on(filter, handler),
    }
}

pub(super) fn delete<H: Handler<T, App>, T: 'static>(
    path: &'static str,
    function: &'static str,
    caller: Caller,
    handler: H,
) -> Route {
    row(Method::Delete, path, function, caller, handler)
}

pub(super) fn get<H: Handler<T, App>, T: 'static>(
    path: &'static str,
    function: &'static str,
    caller: Caller,
    handler: H,
) -> Route {
    row(Method::Get, path, function, caller, handler)
}

pub(super) fn patch<H: Handler<T, App>, T: 'static>(
    path: &'static str,
    function: &'static str,
    caller: Caller,
    handler: H,
) -> Route {
    row(Method::Patch, path, function, caller, handler)
}

pub(super) fn post<H: Handler<T, App>, T: 'static>(
    path: &'static str,
    function: &'static str,
    caller: Caller,
    handler: H,
) -> Route {
    row(Method::Post, path, function, caller, handler)
}

pub(super) fn put<H: Handler<T, App>, T: 'static>(
    path: &'static str,
    function: &'static str,
    caller: Caller,
    handler: H,
) -> Route {
    row(Method::Put, path, function, caller, handler)
}

impl Route {
    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.takes = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    pub(super) fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(SchemaGenerator::root_schema_for::<T>);
        self
    }

    pub(super) fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    pub(super) fn answers<T: JsonSchema>(mut self, status: u16) -> Self {
        self.answer = Answer::Typed(status, SchemaGenerator::subschema_for::<T>);
        self
    }

    pub(super) fn answers_nothing(mut self) -> Self {
        self.answer = Answer::Nothing;
        self
    }

    pub(super) fn answers_json(mut self) -> Self {
        self.answer = Answer::Json;
        self
    }
}

/// Serves the rows that are wanted: all of them on one machine, one function's in Lambda.
pub fn serve(app: App, wanted: impl Fn(&Route) -> bool) -> Router {
    let mut router = Router::new();
    for route in super::table().into_iter().filter(wanted) {
        router = router.route(route.path, route.handler);
    }
    router
        .fallback(|| async { Error::refused(ErrorCode::RouteNotFound, "there is no such route") })
        .method_not_allowed_fallback(|| async {
            Error::refused(ErrorCode::MethodNotAllowed, "the route exists, but not with this method")
        })
        .layer(from_fn(whole_body))
        .layer(from_fn(surround))
        .with_state(app)
}

/// Takes the whole body in before anything is answered, also on routes that want none: a client that is still
/// sending when the connection closes would never see the answer.
async fn whole_body(request: Request, next: Next) -> Response {
    let (parts, stream) = request.into_parts();
    match body(Request::from_parts(parts.clone(), stream)).await {
        Ok(bytes) => next.run(Request::from_parts(parts, bytes.into())).await,
        Err(error) => error.into_response(),
    }
}
