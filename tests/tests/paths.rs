//! Paths, methods and tokens byte by byte, as no HTTP client would send them: a 4xx problem document, never a way
//! around the table, never a change.

use crate::requests::{World, name};
use jobplane_functions::routes::{Route, table};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Long enough for any answer; a route that hangs fails the test.
const LIMIT: Duration = Duration::from_secs(60);

/// Sends a request as it is: its status, its headers, its body.
async fn raw(url: &str, method: &str, path: &[u8], token: &[u8], body: &str) -> (u16, String, Value) {
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        let mut request =
            [method.as_bytes(), b" ", path, b" HTTP/1.1\r\nhost: cell\r\nauthorization: Bearer "].concat();
        request.extend(token);
        request
            .extend(format!("\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).bytes());
        stream.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).expect("UTF-8")
    };
    let answer = tokio::time::timeout(LIMIT, exchange).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head[9..12].parse().expect("a status");
    (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or_default())
}

/// A refusal is a whole problem document of the 4xx kind.
#[track_caller]
fn assert_refused((status, head, body): (u16, String, Value), what: &str) -> u16 {
    assert!((400..500).contains(&status), "{what}: {status} {body}");
    assert!(head.contains("content-type: application/problem+json"), "{what}: {head}");
    assert_eq!(body["status"], status, "{what}");
    assert!(body["code"].is_string() && body["detail"].is_string(), "{what}: {body}");
    status
}

async fn ask(world: &World, route: &Route, path: &str) -> (u16, String, Value) {
    let ask = world.ask(route);
    let body = ask.body.map_or_else(String::new, |body| body.to_string());
    let token = world.token_of(route.caller).as_bytes();
    raw(&world.cell.url, ask.method.as_str(), path.as_bytes(), token, &body).await
}

#[tokio::test]
async fn a_path_that_is_not_exactly_a_route_s_reaches_none() {
    let world = World::new().await;
    let before = world.rows().await;
    for route in &table() {
        let path = world.ask(route).path.split('?').next().unwrap_or_default().to_owned();
        let (parent, last) = path.rsplit_once('/').unwrap();
        let tricks = [
            format!("{path}/"),
            format!("{path}//"),
            format!("/{path}"),
            format!("/.{path}"),
            format!("/x/..{path}"),
            format!("/healthz/..{path}"),
            format!("/%2e%2e{path}"),
            format!("/%2e{path}"),
            format!("{parent}//{last}"),
            format!("{parent}/%2f{last}"),
            path.replacen('/', "/%2f", 1),
            format!("{parent}/./{last}"),
            format!("{path}/."),
            format!("{path}/.."),
            format!("{path}%2f"),
            format!("{path}%00/x"),
            format!("{path}/{}", "x".repeat(5000)),
        ];
        for trick in tricks {
            let what = format!("{} as {trick:.80}", name(route));
            let status = assert_refused(ask(&world, route, &trick).await, &what);
            // 405: it is another row's path, with a word where an id may stand.
            assert!([404, 405].contains(&status), "{what}: {status}");
        }
    }
    assert_eq!(world.rows().await, before);
}

#[tokio::test]
async fn a_parameter_that_is_no_id_names_nothing() {
    let world = World::new().await;
    let before = world.rows().await;
    let long = "a".repeat(5000);
    let strange = [
        "%00",
        "%ff",
        "%",
        "%zz",
        "%2e%2e",
        "..",
        ".",
        "%2f",
        "..%2f..%2ftenants",
        "%20",
        "-1",
        "null",
        "{id}",
        "00000000-0000-0000-0000-000000000000",
        "00000000-0000-0000-0000-00000000000g",
        &long,
    ];
    for route in table().iter().filter(|route| route.path.contains('{')) {
        let parts: Vec<_> = route.path.split('/').collect();
        for strange in strange {
            let path: Vec<_> =
                parts.iter().map(|part| if part.starts_with('{') { strange } else { part }).collect();
            let what = format!("{} with {strange:.40}", name(route));
            let status = assert_refused(ask(&world, route, &path.join("/")).await, &what);
            // What PostgreSQL cannot hold is no queue's name either.
            assert!([404, 405, 422].contains(&status), "{what}: {status}");
        }
    }
    assert_eq!(world.rows().await, before);
}

#[tokio::test]
async fn a_path_answers_no_method_but_its_own() {
    let world = World::new().await;
    let before = world.rows().await;
    let mut paths = BTreeMap::<&str, (String, BTreeSet<&str>)>::new();
    for route in &table() {
        let own = paths.entry(route.path).or_insert_with(|| (world.ask(route).path, BTreeSet::new()));
        own.1.insert(route.method.as_str());
    }
    for (path, (asked, own)) in &paths {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"] {
            if own.contains(method) {
                continue;
            }
            for token in [&world.cell.admin, &world.cell.tenant, &world.cell.worker] {
                let answer = raw(&world.cell.url, method, asked.as_bytes(), token.as_bytes(), "{}").await;
                let what = format!("{method} {path}");
                assert_eq!(assert_refused(answer, &what), 405, "{what}");
            }
        }
    }
    assert_eq!(world.rows().await, before);
}

#[tokio::test]
async fn a_token_that_is_not_text_is_no_token() {
    let world = World::new().await;
    let long = "0".repeat(20_000);
    for route in table().iter().filter(|route| route.caller != jobplane_functions::routes::Caller::Anyone) {
        let ask = world.ask(route);
        let right = world.token_of(route.caller);
        let garbled: [Vec<u8>; 6] = [
            b"".to_vec(),
            [right.as_bytes(), b"\xff"].concat(),
            [right.as_bytes(), b" ", right.as_bytes()].concat(),
            [right.as_bytes(), b",", right.as_bytes()].concat(),
            right.to_uppercase().into_bytes(),
            [right.as_bytes(), long.as_bytes()].concat(),
        ];
        for token in garbled {
            let answer = raw(&world.cell.url, ask.method.as_str(), ask.path.as_bytes(), &token, "").await;
            assert_eq!(assert_refused(answer, &name(route)), 401, "{}", name(route));
        }
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_on_every_route_and_its_sender_hears_so() {
    let world = World::new().await;
    let before = world.rows().await;
    for route in &table() {
        let ask = world.ask(route);
        let token = world.token_of(route.caller);
        // This client writes all of it before it reads.
        let body = " ".repeat(7_000_000);
        let (method, path) = (ask.method.as_str(), ask.path.as_bytes());
        let answer = raw(&world.cell.url, method, path, token.as_bytes(), &body).await;
        assert_eq!(assert_refused(answer, &name(route)), 413, "{}", name(route));
    }
    assert_eq!(world.rows().await, before);
}
