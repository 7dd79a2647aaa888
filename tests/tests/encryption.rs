//! Encrypted connections to PostgreSQL: whom the functions trust, and that nothing but that will do.

use jobplane_functions::{App, Config, Database, Error, migrate, router};
use jobplane_tests::{Cell, connect, database, server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tokio::sync::OnceCell;

/// Authorities: the one that vouched for the run's server, and one that did not.
struct Authorities {
    right: PathBuf,
    wrong: PathBuf,
    _place: tempfile::TempDir,
}

fn authority(place: &Path, name: &str) -> (CertifiedIssuer<'static, KeyPair>, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let path = place.join(name);
    std::fs::write(&path, authority.pem()).unwrap();
    (authority, path)
}

/// Gives the run's server a certificate for 127.0.0.1, and for no other name.
async fn authorities() -> &'static Authorities {
    static MADE: OnceCell<Authorities> = OnceCell::const_new();
    MADE.get_or_init(|| async {
        let place = tempfile::tempdir().unwrap();
        let (authority, right) = authority(place.path(), "right");
        let (_, wrong) = self::authority(place.path(), "wrong");
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let server = tokio::task::spawn_blocking(server).await.unwrap();
        let data = PathBuf::from(format!("/proc/{}/cwd", server.group()));
        let owner = std::fs::metadata(&data).unwrap();
        for (name, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
            let path = data.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let db = connect(&server.url_of("postgres")).await;
        db.batch_execute("alter system set ssl = on").await.unwrap();
        db.batch_execute("select pg_reload_conf()").await.unwrap();
        // The setting is there once a new session has it.
        loop {
            let db = connect(&server.url_of("postgres")).await;
            if db.query_one("show ssl", &[]).await.unwrap().get::<_, &str>(0) == "on" {
                break;
            }
        }
        Authorities { right, wrong, _place: place }
    })
    .await
}

fn trusting(url: &str, ca: &Path) -> Database {
    Database { ca: Some(ca.display().to_string()), ..Database::at(url) }
}

/// Why a database that was reached did not get a word from us.
async fn refused(database: &Database) -> String {
    match migrate(database).await {
        Err(error @ Error::Connect(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_mode_that_encrypts_does_so_when_the_authority_is_the_right_one() {
    let right = &authorities().await.right;
    for mode in ["", "?sslmode=prefer", "?sslmode=require", "?sslmode=verify-ca", "?sslmode=verify-full"] {
        let plain = database().await;
        let settings = trusting(&format!("{plain}{mode}"), right);
        migrate(&settings).await.unwrap();
        let app = App::new(&config(settings)).unwrap();
        let cell = Cell::serving(plain, router(app.clone()), app).await;
        assert_eq!(cell.get("/readyz", "").await.ok()["status"], "ok");
        let encrypted = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid)
            where datname = current_database() and application_name = 'jobplane' and ssl";
        assert_eq!(cell.number(encrypted).await, 1, "{mode}");
    }
}

#[tokio::test]
async fn an_unknown_authority_is_refused_in_every_mode_that_encrypts() {
    let wrong = &authorities().await.wrong;
    let url = database().await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let why = refused(&trusting(&format!("{url}?sslmode={mode}"), wrong)).await;
        assert!(why.contains("invalid peer certificate"), "{mode}: {why}");
        // The public authorities did not vouch for it either.
        let why = refused(&Database::at(&format!("{url}?sslmode={mode}"))).await;
        assert!(why.contains("invalid peer certificate: UnknownIssuer"), "{mode}: {why}");
    }
    let rds = Database { ca: Some("rds".to_owned()), ..Database::at(&url) };
    assert!(refused(&rds).await.contains("invalid peer certificate: UnknownIssuer"));
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_in_every_mode_that_encrypts() {
    let right = &authorities().await.right;
    let url = database().await.replace("127.0.0.1", "localhost");
    for mode in ["require", "verify-ca", "verify-full"] {
        let why = refused(&trusting(&format!("{url}?sslmode={mode}"), right)).await;
        assert!(why.contains("not valid for name"), "{mode}: {why}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_encrypt_is_refused_and_callers_are_told_to_come_back() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("plain");
    let server = tokio::task::spawn_blocking(move || {
        use jobplane::local::postgres::{Durability, Server};
        Server::start(&path, Durability::None).unwrap()
    });
    let server = server.await.unwrap();
    let settings = Database::at(&format!("{}?sslmode=require", server.url_of("postgres")));
    assert!(refused(&settings).await.contains("server does not support TLS"));
    let app = App::new(&config(settings)).unwrap();
    let cell = Cell::serving(server.url_of("postgres"), router(app.clone()), app).await;
    let reply = cell.get("/readyz", "").await;
    assert_eq!(reply.headers["retry-after"], "1");
    reply.refused(503, "unavailable");
}

fn config(database: Database) -> Config {
    Config {
        database,
        admin_token: None,
        admin_token_secret: None,
        cell: "test".to_owned(),
        pool_size: 1,
        lease_seconds: 60,
        keep_days: 30,
        keep_dead_letters_days: 90,
    }
}
