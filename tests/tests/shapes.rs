//! Every field of every body with every value that its schema does not allow, on rows that exist: refused, the field
//! named, and not one row of the database changed.

use crate::requests::{Ask, World, name};
use jobplane_functions::routes::{Route, table};
use jobplane_tests::Reply;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The schema of a route's body, as the OpenAPI document has it.
fn schema_of(document: &Value, route: &Route) -> Value {
    let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
    resolved(document, &operation["requestBody"]["content"]["application/json"]["schema"])
}

fn resolved(document: &Value, schema: &Value) -> Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("it is there").clone(),
        None => schema.clone(),
    }
}

/// The types and formats that a schema allows; none if it allows any JSON.
fn allowed(document: &Value, schema: &Value) -> BTreeSet<String> {
    let schema = resolved(document, schema);
    let mut allowed = BTreeSet::new();
    for one in ["anyOf", "oneOf"].iter().flat_map(|word| schema[word].as_array().into_iter().flatten()) {
        allowed.extend(self::allowed(document, one));
    }
    match &schema["type"] {
        Value::String(name) => {
            allowed.insert(name.clone());
        }
        names => allowed
            .extend(names.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)),
    }
    if schema["format"].is_string() || schema["enum"].is_array() || schema["const"].is_string() {
        allowed.insert("of a form".to_owned());
    }
    allowed
}

/// JSON texts that a field of these types must not take.
fn wrong(allowed: &BTreeSet<String>) -> Vec<&'static str> {
    let is = |name: &str| allowed.contains(name);
    if allowed.is_empty() {
        return Vec::new();
    }
    let mut wrong = vec!["1e400", "-1e400", "99999999999999999999999", "{\"a\": 1}"];
    let of_type = [
        ("boolean", vec!["true"]),
        ("null", vec!["null"]),
        ("array", vec!["[]", "[1]"]),
        ("object", vec!["{}"]),
        ("string", vec!["\"x\"", "\"\""]),
    ];
    for (name, texts) in of_type {
        if !is(name) {
            wrong.extend(texts);
        }
    }
    if is("string") {
        wrong.extend(["\"\\ud800\"", "\"\\u0000\""]);
    }
    if is("string") && is("of a form") {
        wrong.extend(["\"x\"", "\"\"", "\"10000-01-01T00:00:00Z\""]);
    }
    if is("integer") || is("number") {
        wrong.extend(["9223372036854775808", "-9223372036854775809", "-9223372036854775808"]);
    } else {
        wrong.extend(["7", "1.5"]);
    }
    if is("integer") {
        wrong.push("1.5");
    }
    wrong
}

/// The text of an object with this text in one place.
fn with(body: &Map<String, Value>, field: &str, text: &str) -> String {
    let others =
        body.iter().filter(|(name, _)| *name != field).map(|(name, value)| format!("{name:?}: {value}"));
    format!("{{{}}}", others.chain([format!("{field:?}: {text}")]).collect::<Vec<_>>().join(", "))
}

async fn send(world: &World, route: &Route, ask: &Ask, body: String) -> Reply {
    let token = world.token_of(route.caller);
    world.cell.send(world.cell.request(ask.method.clone(), &ask.path, token, Some(body.into_bytes()))).await
}

#[track_caller]
fn assert_refused(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 422, "{what}: {}", reply.body);
    assert!(["invalid_json", "invalid_request"].contains(&reply.body["code"].as_str().unwrap()), "{what}");
    assert_eq!(reply.headers["content-type"], "application/problem+json", "{what}");
}

#[tokio::test]
async fn a_value_of_a_type_that_its_schema_does_not_allow_is_refused_in_every_field() {
    let world = World::new().await;
    let document = jobplane_functions::openapi_document();
    let (before, mut sent) = (world.rows().await, 0);
    for route in table().iter().filter(|route| route.takes.is_some()) {
        let (ask, schema) = (world.ask(route), schema_of(&document, route));
        let body = ask.body.as_ref().and_then(Value::as_object).expect("an object");
        for (field, schema) in schema["properties"].as_object().expect("properties") {
            for text in wrong(&allowed(&document, schema)) {
                let reply = send(&world, route, &ask, with(body, field, text)).await;
                assert_refused(&reply, &format!("{} with {field} = {text}", name(route)));
                sent += 1;
            }
        }
    }
    assert!(sent > 300, "{sent} requests");
    assert_eq!(world.rows().await, before);
}

#[tokio::test]
async fn a_bound_that_a_schema_names_is_the_one_that_is_kept() {
    let world = World::new().await;
    let document = jobplane_functions::openapi_document();
    let mut bounds = Vec::new();
    for route in table().into_iter().filter(|route| route.takes.is_some()) {
        let schema = schema_of(&document, &route);
        for (field, schema) in schema["properties"].as_object().expect("properties") {
            for (bound, step) in [("minimum", -1), ("maximum", 1)] {
                bounds.extend(schema[bound].as_i64().map(|bound| (route.path, field.clone(), bound, step)));
            }
        }
    }
    assert!(bounds.len() > 20, "{bounds:?}");
    let before = world.rows().await;
    for at_the_bound in [false, true] {
        for route in table().iter().filter(|route| route.takes.is_some()) {
            let ask = world.ask(route);
            let body = ask.body.as_ref().and_then(Value::as_object).expect("an object");
            for (_, field, bound, step) in bounds.iter().filter(|(path, ..)| *path == route.path) {
                let value = if at_the_bound { *bound } else { bound + step };
                let reply = send(&world, route, &ask, with(body, field, &value.to_string())).await;
                let what = format!("{} with {field} = {value}", name(route));
                if at_the_bound {
                    assert_ne!(reply.status, 422, "{what}: {}", reply.body);
                } else {
                    assert_refused(&reply, &what);
                    assert!(
                        reply.body["errors"].to_string().contains(field.as_str()),
                        "{what}: {}",
                        reply.body
                    );
                }
            }
        }
        if !at_the_bound {
            assert_eq!(world.rows().await, before);
        }
    }
}

#[tokio::test]
async fn an_unknown_a_missing_and_a_doubled_field_are_refused_by_name_on_every_route() {
    let world = World::new().await;
    let document = jobplane_functions::openapi_document();
    let before = world.rows().await;
    for route in table().iter().filter(|route| route.takes.is_some()) {
        let (ask, schema) = (world.ask(route), schema_of(&document, route));
        let body = ask.body.as_ref().and_then(Value::as_object).expect("an object");
        let whole = Value::Object(body.clone()).to_string();
        let first = body.keys().next().expect("a field");
        let doubled = format!("{}, {first:?}: {}}}", &whole[..whole.len() - 1], body[first]);
        let mut refused =
            vec![("no_such_field", with(body, "no_such_field", "1")), (first.as_str(), doubled)];
        for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let mut body = body.clone();
            body.remove(field).expect("it was there");
            refused.push((field, Value::Object(body).to_string()));
        }
        for (field, body) in refused {
            let reply = send(&world, route, &ask, body).await;
            let what = format!("{} with or without {field}", name(route));
            assert_refused(&reply, &what);
            assert!(reply.body["errors"].to_string().contains(field), "{what}: {}", reply.body);
        }
    }
    assert_eq!(world.rows().await, before);
}

#[tokio::test]
async fn a_list_does_not_stand_for_an_object_anywhere() {
    let world = World::new().await;
    let before = world.rows().await;
    for route in table().iter().filter(|route| route.takes.is_some()) {
        let ask = world.ask(route);
        for body in ["[]", r#"["a"]"#, r#"["a", ["b"]]"#, "[null, null]"] {
            let reply = send(&world, route, &ask, body.to_owned()).await;
            assert_refused(&reply, &format!("{} with {body}", name(route)));
        }
    }
    let World { cell, job, running, lease, .. } = &world;
    let line = json!(["2026-01-01T00:00:00Z", "stdout", "a line"]);
    let logs = json!({"lease_id": lease, "first_seq": 0, "lines": [line]});
    cell.post(&format!("/internal/executions/{}/logs", running[0]), &cell.worker, logs)
        .await
        .refused(422, "invalid_request");
    for retry in [json!([]), json!([1, 2, 3.0, 4])] {
        let body = json!({"name": "listed", "command": ["true"], "retry": retry});
        cell.post("/jobs", &cell.tenant, body).await.refused(422, "invalid_request");
    }
    let runs = json!({"runs": [{}, []]});
    let refused =
        cell.post(&format!("/jobs/{job}/runs"), &cell.tenant, runs).await.refused(422, "invalid_request");
    assert_eq!(refused["errors"][0]["field"], "runs[1]");
    assert_eq!(world.rows().await, before);
    // In a batch it fails its own item only.
    let item = json!([running[0], lease, "succeeded"]);
    let ends = cell.post("/internal/executions/results", &cell.worker, json!({"results": [item]})).await.ok();
    assert_eq!(ends["results"][0]["error_code"], "invalid_request");
    let beats = json!({"leases": [[running[0], lease], {"execution_id": running[0], "lease_id": lease}]});
    let beats = cell.post("/internal/executions/heartbeats", &cell.worker, beats).await.ok();
    assert_eq!(
        (&beats["results"][0]["state"], &beats["results"][1]["state"]),
        (&json!("lost"), &json!("held"))
    );
}
