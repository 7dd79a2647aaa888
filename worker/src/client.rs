//! The retrying HTTP client, the only way in which the worker and the command line reach a controller.

mod answer;
mod budget;
mod call;
mod credential;
mod probe;

pub use call::Call;
pub use credential::Credential;
pub(crate) use probe::Probed;

use crate::Error;
use crate::error::with_causes;
use budget::RetryBudget;
use credential::Authorization;
use reqwest::{Method, Url};
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept; below the 60 s after which common gateways close theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// How long and how often a call is tried.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// What one attempt may take, connecting and the whole answer included.
    pub attempt_timeout: Duration,
    /// What all attempts and the waits between them may take.
    pub deadline: Duration,
    /// The longest first wait.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempt_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(30),
            base: Duration::from_millis(100),
            cap: Duration::from_secs(5),
        }
    }
}

/// A controller, and who calls it. Cheap to clone; clones share connections, token and retry budget.
///
/// A call is retried on transport errors, 429 and 5xx, with full jitter and not before a
/// `Retry-After`, until its deadline or the budget ends; never on another 4xx. On a 401 a token file
/// is read again, once per call, and the call is repeated if the token has changed.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    base: String,
    authorization: Authorization,
    budget: RetryBudget,
    policy: RetryPolicy,
}

impl Client {
    /// A client of the controller at `base_url` (`http` or `https`; a path in front of the routes is
    /// kept) with the default policy.
    ///
    /// Proxies come from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, but never for a loopback address.
    ///
    /// # Errors
    /// [`Error::Configuration`] if the URL or the token is unusable.
    pub fn new(base_url: &str, credential: Credential) -> Result<Self, Error> {
        Self::with_policy(base_url, credential, RetryPolicy::default())
    }

    /// As [`Client::new`], with a policy of one's own.
    ///
    /// # Errors
    /// [`Error::Configuration`] if the URL or the token is unusable.
    pub fn with_policy(base_url: &str, credential: Credential, policy: RetryPolicy) -> Result<Self, Error> {
        let base = base_url_of(base_url)?;
        let mut http = http_to(&base).build();
        if base.scheme() == "http" {
            // A machine without certificate authorities, such as a small image, needs none for this.
            http = http.or_else(|_| http_to(&base).tls_certs_only([]).build());
        }
        let http = http.map_err(|error| {
            Error::Configuration(format!("the HTTP client cannot be set up: {}", with_causes(&error)))
        })?;
        let inner = Inner {
            http,
            base: base.as_str().trim_end_matches('/').to_owned(),
            authorization: Authorization::new(credential)?,
            budget: RetryBudget::full(),
            policy,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The controller's URL, without a slash at its end.
    pub fn base_url(&self) -> &str {
        &self.inner.base
    }

    /// A GET of `path`, which begins with a slash.
    pub fn get(&self, path: impl Into<String>) -> Call {
        self.call(Method::GET, path)
    }

    /// A POST to `path`.
    pub fn post(&self, path: impl Into<String>) -> Call {
        self.call(Method::POST, path)
    }

    /// A PUT to `path`.
    pub fn put(&self, path: impl Into<String>) -> Call {
        self.call(Method::PUT, path)
    }

    /// A PATCH of `path`.
    pub fn patch(&self, path: impl Into<String>) -> Call {
        self.call(Method::PATCH, path)
    }

    /// A DELETE of `path`.
    pub fn delete(&self, path: impl Into<String>) -> Call {
        self.call(Method::DELETE, path)
    }

    fn call(&self, method: Method, path: impl Into<String>) -> Call {
        Call::new(self.clone(), method, path.into())
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.inner.base).finish_non_exhaustive()
    }
}

/// What makes requests to this controller.
fn http_to(base: &Url) -> reqwest::ClientBuilder {
    let http = reqwest::Client::builder()
        .user_agent(concat!("jobplane/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    if is_loopback(base) { http.no_proxy() } else { http }
}

/// The URL in front of every path, or what is wrong with it. The text itself is not repeated in the
/// error: it may hold a password.
fn base_url_of(text: &str) -> Result<Url, Error> {
    let refuse = |what: &str| {
        Error::Configuration(format!(
            "the controller's URL {what}; it looks like https://jobs.example.com or http://127.0.0.1:8080"
        ))
    };
    let url = Url::parse(text.trim()).map_err(|error| refuse(&format!("cannot be read ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("must not hold a user or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("must not hold a query or fragment"));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests;
