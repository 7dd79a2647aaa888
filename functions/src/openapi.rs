//! The OpenAPI 3.1 document, made from the table of routes and the types of the contract.

use crate::routes::run::MAX_TRACEPARENT_BYTES;
use crate::routes::{Answer, Caller, Route, table};
use jobplane_protocol::Problem;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The whole document.
pub fn document() -> Value {
    let mut schemas = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut paths = Map::new();
    let problem = schemas.subschema_for::<Problem>();
    for route in table() {
        let operation = operation(&route, &mut schemas);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "jobplane",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Runs jobs for many tenants: a serverless control plane and a fleet of workers that only speak HTTP.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "responses": {"Problem": {
                "description": "The call was refused or failed; `code` says why, `detail` what to do.",
                "headers": {"Retry-After": {
                    "description": "With 429 and 503: seconds to wait.", "schema": {"type": "integer"}}},
                "content": {"application/problem+json": {"schema": problem}},
            }},
            "securitySchemes": {
                "admin": {"type": "http", "scheme": "bearer", "description": "jp_admin_…: the operator"},
                "tenant": {"type": "http", "scheme": "bearer", "description": "jp_key_…: one tenant"},
                "worker": {"type": "http", "scheme": "bearer", "description": "jp_worker_…: a fleet of workers"},
            },
        },
    })
}

fn operation(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "tags": [route.function],
        "security": security(route.caller),
        "parameters": parameters(route, schemas),
        "responses": responses(route, schemas),
    });
    if let Some(schema) = route.takes {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema(schemas)}}});
    }
    operation
}

/// Method and path as one word: `post_jobs_id_run`.
fn operation_id(route: &Route) -> String {
    let path = route.path.replace(['{', '}'], "").replace(['-', '.'], "_");
    format!("{}{}", route.method.as_str().to_lowercase(), path.replace('/', "_"))
}

fn security(caller: Caller) -> Value {
    match caller {
        Caller::Anyone => json!([]),
        Caller::Admin => json!([{"admin": []}]),
        Caller::AdminOrWorker => json!([{"admin": []}, {"worker": []}]),
        Caller::Tenant => json!([{"tenant": []}]),
        Caller::Worker => json!([{"worker": []}]),
    }
}

fn parameters(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let mut parameters = Vec::new();
    for part in route.path.split('/') {
        if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            let schema = if name == "name" {
                json!({"type": "string"})
            } else {
                json!({"type": "string", "format": "uuid"})
            };
            parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
        }
    }
    if let Some(query) = route.query {
        let schema = query(schemas).to_value();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            parameters.push(json!({"name": name, "in": "query", "required": false, "schema": schema}));
        }
    }
    if route.idempotent {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "The same key again within 24 hours answers what the first call was answered.",
            "schema": header(jobplane_protocol::limits::MAX_IDEMPOTENCY_KEY_BYTES),
        }));
        parameters.push(json!({
            "name": "traceparent", "in": "header", "required": false,
            "description": "The W3C trace context, handed on to the job.", "schema": header(MAX_TRACEPARENT_BYTES),
        }));
    }
    Value::Array(parameters)
}

/// Visible ASCII, which a header may have blanks in but not around.
fn header(max_bytes: usize) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": max_bytes, "pattern": "^[!-~]([ -~]*[!-~])?$"})
}

fn responses(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let mut responses = json!({"default": {"$ref": "#/components/responses/Problem"}});
    match route.answer {
        Answer::Nothing => responses["204"] = json!({"description": "Done."}),
        Answer::Json => {
            responses["200"] =
                json!({"description": "The document.", "content": {"application/json": {"schema": {}}}});
        }
        Answer::Typed(status, schema) => {
            let ok =
                json!({"description": "Done.", "content": {"application/json": {"schema": schema(schemas)}}});
            if route.idempotent {
                responses["200"] = json!({
                    "description": "Done by an earlier call with this key.", "content": ok["content"].clone()});
            }
            responses[status.to_string()] = ok;
        }
    }
    responses
}
