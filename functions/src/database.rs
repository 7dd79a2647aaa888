//! How a connection to PostgreSQL is made: its address, encryption, a password that may change, and whether it can still be
//! trusted after a sleep.

pub(crate) mod tls;

use crate::aws::{self, Secret};
use crate::config::Database;
use crate::error::source_of;
use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{CancelToken, Client, NoTls, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a connection may take to be made.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A connection that was last used longer ago is asked for a sign of life: its process may have been frozen meanwhile.
const TRUSTED_FOR: Duration = Duration::from_secs(5);
/// How long that sign may take.
const CHECK_LIMIT: Duration = Duration::from_secs(1);
/// A secret that was read longer ago is read again when the database refuses its password.
const REFUSED_AGE: Duration = Duration::from_secs(2);
/// PostgreSQL's port, where no other is named.
const PORT: u16 = 5432;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// PostgreSQL is away, or does not let us in.
    #[error("{}", source_of(.0))]
    Database(#[from] tokio_postgres::Error),
    /// The password could not be had.
    #[error(transparent)]
    Aws(#[from] aws::Error),
    /// What the settings say cannot be followed.
    #[error("{0}")]
    Setup(String),
}

/// All that is needed to log in.
pub(crate) struct Login {
    address: tokio_postgres::Config,
    password: Password,
    trusted: Option<String>,
    /// Made with the first connection.
    tls: OnceLock<MakeRustlsConnect>,
}

enum Password {
    /// As the URL has it.
    Given,
    /// In a secret, with the user's name.
    Secret(Secret),
    /// A signature, made for each connection.
    Signed,
}

/// The secret of a database user, as RDS writes it. Numbers of ports come as numbers and as text.
#[derive(serde::Deserialize)]
struct User {
    username: String,
    password: String,
    host: Option<String>,
    port: Option<serde_json::Value>,
    dbname: Option<String>,
}

impl Login {
    /// Reads the address; connects to nothing.
    pub(crate) fn new(settings: &Database) -> Result<Self, tokio_postgres::Error> {
        // The two that tokio-postgres does not know mean what `require` means here.
        let url = ["verify-full", "verify-ca"].iter().fold(settings.url.clone(), |url, mode| {
            url.replace(&format!("sslmode={mode}"), "sslmode=require")
        });
        let mut address: tokio_postgres::Config = url.parse()?;
        let encrypted = match address.get_ssl_mode() {
            SslMode::Disable => false,
            SslMode::Require => true,
            _ => settings.ca.is_some() || settings.iam,
        };
        address
            .ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable })
            .application_name("jobplane")
            .connect_timeout(CONNECT_LIMIT);
        let password = match &settings.secret {
            _ if settings.iam => Password::Signed,
            Some(name) => Password::Secret(Secret::of(name)),
            None => Password::Given,
        };
        Ok(Self { address, password, trusted: settings.ca.clone(), tls: OnceLock::new() })
    }

    /// The same address, as encrypted, for the user of this secret, whoever the address names.
    pub(crate) fn with_secret(self, secret: &str) -> Self {
        Self { password: Password::Secret(Secret::of(secret)), ..self }
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> Result<Connection, ConnectError> {
        match &self.password {
            Password::Given => self.open(&self.address).await,
            Password::Signed => self.open(&signed(&self.address).await?).await,
            Password::Secret(secret) => {
                let known = secret.text(Duration::MAX).await?;
                match self.open(&with_user(&self.address, &known)?).await {
                    Err(ConnectError::Database(error)) if is_refused(&error) => {
                        // It was rotated since, if there is another.
                        let now = secret.text(REFUSED_AGE).await?;
                        if now == known {
                            return Err(error.into());
                        }
                        self.open(&with_user(&self.address, &now)?).await
                    }
                    opened => opened,
                }
            }
        }
    }

    /// The user that logs in, and its password unless that is a signature.
    pub(crate) async fn user(&self) -> Result<(String, Option<String>), ConnectError> {
        let with_user = match &self.password {
            Password::Secret(secret) => with_user(&self.address, &secret.text(Duration::MAX).await?)?,
            _ => self.address.clone(),
        };
        let user = with_user
            .get_user()
            .ok_or_else(|| ConnectError::Setup("DATABASE_URL names no user".to_owned()))?;
        let password =
            with_user.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
        Ok((user.to_owned(), password))
    }

    async fn open(&self, address: &tokio_postgres::Config) -> Result<Connection, ConnectError> {
        if address.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = address.connect(NoTls).await?;
            return Ok(Connection::of(client, connection, None));
        }
        let tls = match self.tls.get() {
            Some(tls) => tls,
            None => {
                let client = tls::client(self.trusted.as_deref()).map_err(ConnectError::Setup)?;
                self.tls.get_or_init(|| MakeRustlsConnect::new(client))
            }
        };
        let (client, connection) = address.connect(tls.clone()).await?;
        Ok(Connection::of(client, connection, Some(tls.clone())))
    }
}

/// Whether it does not let this user in, with this password.
fn is_refused(error: &tokio_postgres::Error) -> bool {
    let refusals = [&SqlState::INVALID_PASSWORD, &SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
    error.code().is_some_and(|code| refusals.contains(&code))
}

/// The address with the user of a secret, and what else the secret says that the address does not.
fn with_user(address: &tokio_postgres::Config, secret: &str) -> Result<tokio_postgres::Config, ConnectError> {
    let user: User = serde_json::from_str(secret).map_err(|error| {
        // Without the text that it could not read.
        let problem =
            format!("the database's secret is not {{\"username\", \"password\", …}}: {:?}", error.classify());
        ConnectError::Setup(problem)
    })?;
    let mut address = address.clone();
    address.user(user.username).password(user.password);
    if address.get_hosts().is_empty() {
        let host =
            user.host.ok_or_else(|| ConnectError::Setup("nothing names the database's host".to_owned()))?;
        let port = user.port.and_then(|port| port.to_string().trim_matches('"').parse().ok());
        address.host(host).port(port.unwrap_or(PORT));
    }
    if let (None, Some(name)) = (address.get_dbname(), user.dbname) {
        address.dbname(name);
    }
    Ok(address)
}

/// The address with a signature for a password.
async fn signed(address: &tokio_postgres::Config) -> Result<tokio_postgres::Config, ConnectError> {
    let (Some(Host::Tcp(host)), Some(user)) = (address.get_hosts().first(), address.get_user()) else {
        return Err(ConnectError::Setup(
            "DATABASE_URL must name the user and the host of the token".to_owned(),
        ));
    };
    let port = address.get_ports().first().copied().unwrap_or(PORT);
    let token = aws::rds_token(host, port, user).await?;
    let mut address = address.clone();
    address.password(token);
    Ok(address)
}

/// A session of PostgreSQL. It ends with this value.
pub(crate) struct Connection {
    client: Client,
    driver: Driver,
    cancel: Arc<Cancel>,
    handed_out: SystemTime,
}

impl Connection {
    fn of<C>(client: Client, connection: C, tls: Option<MakeRustlsConnect>) -> Self
    where
        C: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let driver = tokio::spawn(async {
            if let Err(error) = connection.await {
                tracing::warn!(cause = source_of(&error), "a connection to the database broke");
            }
        });
        let cancel = Arc::new(Cancel { token: client.cancel_token(), tls });
        Self { client, driver: Driver(driver), cancel, handed_out: crate::wall_clock() }
    }

    /// What stops its statement while somebody waits for that.
    pub(crate) fn cancel(&self) -> Arc<Cancel> {
        self.cancel.clone()
    }

    /// Ends the session in order, and waits until it has ended.
    pub(crate) async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        if let Err(error) = (&mut driver.0).await {
            tracing::warn!(%error, "a connection to the database did not close cleanly");
        }
    }
}

/// How the statement that a session runs is stopped from outside of it.
pub(crate) struct Cancel {
    token: CancelToken,
    tls: Option<MakeRustlsConnect>,
}

impl Cancel {
    /// Asks the server to stop it. It may come late, so nothing else may be run in that session.
    pub(crate) async fn send(&self) {
        let sent = match &self.tls {
            Some(tls) => self.token.cancel_query(tls.clone()).await,
            None => self.token.cancel_query(NoTls).await,
        };
        if let Err(error) = sent {
            tracing::warn!(cause = source_of(&error), "a statement could not be cancelled");
        }
    }
}

/// The task that moves a session's bytes: it does not outlive the session.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Manager for Login {
    type Type = Connection;
    type Error = ConnectError;

    /// In a box of its own, since it is large and rare.
    async fn create(&self) -> Result<Connection, ConnectError> {
        Box::pin(self.connect()).await
    }

    /// One that was in use a moment ago costs nothing to be used again. The wall's clock, since it goes on while a process is
    /// frozen; one that was set back makes a check too many.
    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<ConnectError> {
        let now = crate::wall_clock();
        let slept = now.duration_since(connection.handed_out).unwrap_or(Duration::MAX);
        connection.handed_out = now;
        if connection.is_closed() {
            return Err(RecycleError::message("it is closed"));
        }
        if slept <= TRUSTED_FOR {
            return Ok(());
        }
        match tokio::time::timeout(CHECK_LIMIT, connection.simple_query("")).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ConnectError::Database(error).into()),
            Err(_) => Err(RecycleError::message("it gave no sign of life")),
        }
    }
}
