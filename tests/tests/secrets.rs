//! Passwords and the operator's token in a real Secrets Manager API, read by the deployed binaries: the first time, after
//! a rotation, and while nobody answers.

use jobplane_functions::{Database, migrate};
use jobplane_protocol::{Token, TokenKind};
use jobplane_tests::{Lambda, Secrets, connect, database};
use serde_json::json;

/// A migrated database and a user of it, whose password a secret holds.
struct Place {
    secrets: Secrets,
    /// Without a user.
    url: String,
    user: String,
    db: tokio_postgres::Client,
}

impl Place {
    async fn new() -> Self {
        let whole = database().await;
        migrate(&Database::at(&whole)).await.unwrap();
        let db = connect(&whole).await;
        let user = format!("user_{}", whole.rsplit_once('/').unwrap().1);
        db.batch_execute(&format!("create role {user} login superuser password 'first'")).await.unwrap();
        let secrets = Secrets::start().await;
        let (_, rest) = whole.split_once('@').unwrap();
        let url = format!("postgres://{rest}");
        let place = Self { secrets, url, user, db };
        place.secrets.create("database", &place.secret("first")).await;
        place
    }

    /// As RDS writes it when it looks after the password itself.
    fn secret(&self, password: &str) -> String {
        json!({"username": self.user, "password": password}).to_string()
    }

    async fn copy(&self, function: &str, more: &[(&str, &str)]) -> Lambda {
        let environment = [
            ("DATABASE_URL", self.url.as_str()),
            ("JOBPLANE_DATABASE_SECRET", "database"),
            ("AWS_ENDPOINT_URL", &self.secrets.url),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        Lambda::start(function, &[&environment, more].concat()).await
    }

    /// Gives the user another password; its sessions end.
    async fn set_password(&self, password: &str) {
        let sql = format!("alter role {} password '{password}'", self.user);
        self.db.batch_execute(&sql).await.unwrap();
        self.end_sessions().await;
    }

    /// How many sessions the user has.
    async fn sessions(&self) -> i64 {
        let sql = "select count(*) from pg_stat_activity where usename = $1";
        self.db.query_one(sql, &[&self.user]).await.unwrap().get(0)
    }

    /// Ends the user's sessions, and waits until they have ended.
    async fn end_sessions(&self) {
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1";
        self.db.query(end, &[&self.user]).await.unwrap();
        while self.sessions().await > 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Whether the function gets a word from the database: 200, or 503 with a `Retry-After`.
async fn ready(copy: &Lambda) -> bool {
    let answer = reqwest::get(format!("{}/readyz", copy.url)).await.unwrap();
    if answer.status() == 200 {
        return true;
    }
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    false
}

#[tokio::test]
async fn a_password_is_read_from_its_secret_when_the_first_request_needs_it() {
    let place = Place::new().await;
    let copy = place.copy("health", &[]).await;
    assert!(ready(&copy).await);
    assert_eq!(place.sessions().await, 1);
}

#[tokio::test]
async fn a_secret_that_says_it_all_needs_no_url() {
    let place = Place::new().await;
    let (host, database) = place.url.trim_start_matches("postgres://").split_once('/').unwrap();
    let (host, port) = host.split_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let whole = json!({
        "engine": "postgres", "username": place.user, "password": "first", "host": host, "port": port, "dbname": database,
    });
    place.secrets.create("whole", &whole.to_string()).await;
    let copy = place.copy("health", &[("DATABASE_URL", ""), ("JOBPLANE_DATABASE_SECRET", "whole")]).await;
    assert!(ready(&copy).await);
}

#[tokio::test]
async fn a_password_that_is_rotated_while_a_copy_is_warm_is_read_again() {
    let place = Place::new().await;
    let copy = place.copy("health", &[]).await;
    assert!(ready(&copy).await);
    place.set_password("second").await;
    place.secrets.change("database", &place.secret("second")).await;
    // What was read a moment ago is not asked for again at once.
    while !ready(&copy).await {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(place.sessions().await, 1);
}

#[tokio::test]
async fn while_secrets_are_away_a_copy_that_has_read_its_password_goes_on() {
    let mut place = Place::new().await;
    let copy = place.copy("health", &[]).await;
    assert!(ready(&copy).await);
    place.secrets.go_away();
    place.end_sessions().await;
    while !ready(&copy).await {
        tokio::task::yield_now().await;
    }
    place.secrets.come_back().await;
}

#[tokio::test]
async fn while_secrets_are_away_a_new_copy_answers_503_and_is_well_once_they_are_back() {
    let mut place = Place::new().await;
    place.secrets.go_away();
    let copy = place.copy("health", &[]).await;
    for _ in 0..3 {
        assert!(!ready(&copy).await);
    }
    let healthy = reqwest::get(format!("{}/healthz", copy.url)).await.unwrap();
    assert_eq!(healthy.status(), 200, "the process itself is well");
    place.secrets.come_back().await;
    place.secrets.create("database", &place.secret("first")).await;
    assert!(ready(&copy).await);
}

#[tokio::test]
async fn a_secret_that_is_no_user_s_is_503_and_is_not_logged() {
    let place = Place::new().await;
    place.secrets.create("garbled", "{\"password\": \"hush\"").await;
    let copy = place.copy("health", &[("JOBPLANE_DATABASE_SECRET", "garbled")]).await;
    assert!(!ready(&copy).await);
    let said = copy.line(|line| line.to_string().contains("the database's secret is not")).await;
    assert!(!said.to_string().contains("hush"), "{said}");
}

#[tokio::test]
async fn the_operator_s_token_is_read_from_its_secret_also_when_it_is_rotated() {
    let place = Place::new().await;
    let mint = || Token::mint(TokenKind::Admin, "blue", rand::random()).reveal().to_owned();
    let (first, second) = (mint(), mint());
    let digits = |token: &str| token.rsplit_once('_').unwrap().1.to_owned();
    place.secrets.create("operator", &first).await;
    let settings = [("JOBPLANE_ADMIN_TOKEN_SECRET", "operator"), ("JOBPLANE_CELL", "blue")];
    let copy = place.copy("tenants", &settings).await;
    let status = async |token: &str| {
        let call = reqwest::Client::new().get(format!("{}/tenants", copy.url)).bearer_auth(token);
        call.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(&first).await, 200);
    assert_eq!(status(&second).await, 401);
    // As CloudFormation can make one: the digits alone.
    place.secrets.change("operator", &digits(&second)).await;
    while status(&second).await == 401 {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!((status(&second).await, status(&first).await), (200, 401));
}

#[tokio::test]
async fn the_operator_is_told_to_come_back_while_the_secret_cannot_be_read() {
    let mut place = Place::new().await;
    place.secrets.go_away();
    let settings = [("JOBPLANE_ADMIN_TOKEN_SECRET", "operator")];
    let copy = place.copy("tenants", &settings).await;
    let token = Token::mint(TokenKind::Admin, "local", rand::random());
    let call = reqwest::Client::new().get(format!("{}/tenants", copy.url)).bearer_auth(token.reveal());
    let answer = call.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    place.secrets.come_back().await;
}
