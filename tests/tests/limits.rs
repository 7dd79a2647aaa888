//! Every size and count at its exact edge: the last that is accepted, the first that is refused. And what is accepted
//! comes back byte for byte.

use jobplane_protocol::limits;
use jobplane_tests::{Cell, Reply, text};
use reqwest::Method;
use serde_json::{Value, json};

/// A JSON text of so many bytes.
fn sized(bytes: usize) -> String {
    "x".repeat(bytes - 2)
}

/// A JSON value that nests so deep.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

/// One execution that a worker holds: its id and its lease.
async fn held(cell: &Cell) -> (String, String) {
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    (id, cell.dequeue(1).await.0)
}

#[tokio::test]
async fn an_input_is_accepted_up_to_its_size_and_depth_alone_and_in_a_bulk() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let at = [sized(limits::MAX_INPUT_BYTES).into(), nested(limits::MAX_JSON_DEPTH)];
    let over = [sized(limits::MAX_INPUT_BYTES + 1).into(), nested(limits::MAX_JSON_DEPTH + 1)];
    for (path, wrapped) in [("run", false), ("runs", true)] {
        let path = format!("/jobs/{job}/{path}");
        let body = |input: &Value| {
            if wrapped { json!({"runs": [{}, {"input": input}]}) } else { json!({"input": input}) }
        };
        for input in &at {
            cell.post(&path, &cell.tenant, body(input)).await.ok();
        }
        let before = cell.rows("true").await;
        let field = if wrapped { "runs[1].input" } else { "input" };
        for (input, status, code) in [(&over[0], 413, "input_too_large"), (&over[1], 422, "invalid_request")]
        {
            let refused = cell.post(&path, &cell.tenant, body(input)).await.refused(status, code);
            assert_eq!(refused["errors"][0]["field"], field);
        }
        assert_eq!(cell.rows("true").await, before, "a bulk with one bad item is refused whole");
    }
}

#[tokio::test]
async fn what_a_worker_says_is_accepted_up_to_its_size() {
    let cell = Cell::new().await;
    let (id, lease) = held(&cell).await;
    let beat = |progress: String| {
        let body = json!({"lease_id": lease, "progress": progress});
        let (cell, path) = (&cell, format!("/internal/executions/{id}/heartbeat"));
        async move { cell.call(Method::PUT, &path, &cell.worker, Some(body)).await }
    };
    beat(sized(limits::MAX_PROGRESS_BYTES)).await.ok();
    beat(sized(limits::MAX_PROGRESS_BYTES + 1)).await.refused(422, "invalid_request");
    let end = |field: &str, text: String| {
        let mut body = json!({"outcome": "succeeded"});
        body[field] = json!(text);
        (&cell, id.clone(), lease.clone(), body)
    };
    async fn send((cell, id, lease, body): (&Cell, String, String, Value)) -> Reply {
        cell.result(&id, &lease, body).await
    }
    send(end("result", sized(limits::MAX_RESULT_BYTES + 1))).await.refused(413, "result_too_large");
    send(end("error", "x".repeat(limits::MAX_ERROR_BYTES + 1))).await.refused(422, "invalid_request");
    assert_eq!(cell.execution(&id).await["status"], "RUNNING", "a refused result ends nothing");
    let mut body = end("result", sized(limits::MAX_RESULT_BYTES));
    body.3["error"] = json!("x".repeat(limits::MAX_ERROR_BYTES));
    send(body).await.ok();
    let seen = cell.execution(&id).await;
    assert_eq!(seen["result"].as_str().map(str::len), Some(limits::MAX_RESULT_BYTES - 2));
    assert_eq!(seen["error"].as_str().map(str::len), Some(limits::MAX_ERROR_BYTES));
}

#[tokio::test]
async fn a_log_chunk_is_accepted_up_to_its_bytes_and_its_lines() {
    let cell = Cell::new().await;
    let (id, lease) = held(&cell).await;
    let send = |first_seq: usize, count: usize, bytes: usize| {
        let line = json!({"at": "2026-01-01T00:00:00Z", "stream": "stderr", "text": "x".repeat(bytes)});
        let body = json!({"lease_id": lease, "first_seq": first_seq, "lines": vec![line; count]});
        let (cell, path) = (&cell, format!("/internal/executions/{id}/logs"));
        async move { cell.post(&path, &cell.worker, body).await }
    };
    send(0, 1, limits::MAX_LOG_CHUNK_BYTES + 1).await.refused(413, "log_chunk_too_large");
    send(0, 2, limits::MAX_LOG_CHUNK_BYTES / 2 + 1).await.refused(413, "log_chunk_too_large");
    send(0, limits::MAX_LOG_CHUNK_LINES + 1, 1).await.refused(422, "invalid_request");
    send(0, 0, 0).await.refused(422, "invalid_request");
    assert_eq!(cell.number("select count(*) from log_chunks").await, 0);
    assert_eq!(send(0, 1, limits::MAX_LOG_CHUNK_BYTES).await.ok()["next_seq"], 1);
    let lines = limits::MAX_LOG_CHUNK_LINES;
    assert_eq!(send(1, lines, 1).await.ok()["next_seq"], json!(lines + 1));
}

#[tokio::test]
async fn empty_lines_count_against_the_log_s_limit() {
    let cell = Cell::new().await;
    let (id, lease) = held(&cell).await;
    let line = json!({"at": "2026-01-01T00:00:00Z", "stream": "stdout", "text": ""});
    let lines = vec![line; limits::MAX_LOG_CHUNK_LINES];
    let path = format!("/internal/executions/{id}/logs");
    for chunk in 0..20 {
        let body = json!({"lease_id": lease, "first_seq": chunk * lines.len(), "lines": lines});
        cell.post(&path, &cell.worker, body).await.ok();
    }
    let kept = cell.number("select sum(octet_length(lines)) from log_chunks where not truncated").await;
    assert!(kept <= limits::MAX_LOG_BYTES as i64, "{kept}");
    assert_eq!(cell.number("select count(*) from log_chunks where truncated").await, 1);
}

/// What a request is answered, and how large that is as Lambda counts it, escaped into a JSON text: it takes 6 MB.
async fn weighed(cell: &Cell, request: reqwest::RequestBuilder) -> (Reply, usize) {
    let reply = cell.send(request).await;
    let bytes = json!(reply.body.to_string()).to_string().len();
    assert!(bytes < 6_000_000, "{bytes} bytes");
    (reply, bytes)
}

#[tokio::test]
async fn a_refusal_stays_small_whatever_was_sent() {
    let cell = Cell::new().await;
    let env: serde_json::Map<_, _> = (0..150_000).map(|n| (format!("-{n}"), json!(""))).collect();
    let long = "\"".repeat(1_000_000);
    for (path, token, fields, errors) in [
        ("/jobs", &cell.tenant, json!({"env": env}), limits::MAX_FIELD_ERRORS),
        ("/jobs", &cell.tenant, json!({(long.as_str()): 1}), 1),
        ("/jobs", &cell.tenant, json!({"env": {(long.as_str()): 1}}), 1),
        ("/jobs", &cell.tenant, json!({"priority": long}), 1),
        ("/worker-tokens", &cell.admin, json!({"queues": vec!["\n"; 100_000]}), limits::MAX_FIELD_ERRORS),
    ] {
        let mut body = json!({"name": "n", "command": ["true"]});
        if path == "/worker-tokens" {
            body = json!({"name": "n"});
        }
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let request = cell.request(Method::POST, path, token, Some(body.to_string().into_bytes()));
        let (reply, bytes) = weighed(&cell, request).await;
        assert!(bytes < 100_000, "{bytes}");
        let refused = reply.refused(422, "invalid_request");
        let found = refused["errors"].as_array().unwrap();
        assert_eq!(found.len(), errors);
        for text in found.iter().flat_map(|error| [&error["field"], &error["detail"]]).map(text) {
            assert!(text.len() <= limits::MAX_ERROR_TEXT_BYTES + '…'.len_utf8(), "{text}");
        }
    }
    // In a batch every item may be bad.
    let id = uuid::Uuid::now_v7();
    let item = json!({"execution_id": id, "lease_id": id, ("x".repeat(2_000)): 1});
    for (path, field) in [("heartbeats", "leases"), ("results", "results")] {
        let body = json!({field: vec![&item; limits::MAX_BATCH]}).to_string().into_bytes();
        let path = format!("/internal/executions/{path}");
        let (reply, _) = weighed(&cell, cell.request(Method::POST, &path, &cell.worker, Some(body))).await;
        assert_eq!(reply.ok()["results"].as_array().map(Vec::len), Some(limits::MAX_BATCH));
    }
    assert_eq!(cell.number("select count(*) from jobs").await, 0);
}

#[tokio::test]
async fn a_page_of_large_items_is_short_and_goes_on_at_its_cursor() {
    let cell = Cell::new().await;
    let arguments = vec!["\u{1}".repeat(1_000); limits::MAX_COMMAND_BYTES / 1_000];
    let job = cell.new_job(json!({"command": arguments})).await;
    let copies = "insert into jobs select (x.c).* from (
        select jsonb_populate_record(j, jsonb_build_object('id', uuid7(now() + n * interval '1 us'), 'name', n)) as c
        from jobs j, generate_series(1, 59) n offset 0) x";
    assert_eq!(cell.sql(copies, &[]).await, 59);
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("/jobs?limit=1000{cursor}");
        let (reply, _) = weighed(&cell, cell.request(Method::GET, &path, &cell.tenant, None)).await;
        let page = reply.ok();
        let items = page["items"].as_array().unwrap();
        assert!(!items.is_empty());
        seen.extend(items.iter().map(|item| text(&item["id"])));
        pages += 1;
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!((seen.len(), seen.last()), (60, Some(&job)));
    assert!((5..=10).contains(&pages), "{pages} pages");
}

#[tokio::test]
async fn an_execution_with_a_long_history_shows_the_latest_of_it() {
    let cell = Cell::new().await;
    let (id, lease) = held(&cell).await;
    let attempts = "insert into attempts (execution_id, attempt, outcome, status, tries, finished_at, error)
        select $1::text::uuid, n, 'released', 'PENDING', 0, now() - interval '1 hour' + n * interval '1 s', $2
        from generate_series($3::int, $4::int) n";
    cell.sql("update leases set attempt = 3000", &[]).await;
    cell.sql(attempts, &[&id, &"\u{1}".repeat(1_000), &2, &400]).await;
    let read = async || {
        let path = format!("/executions/{id}");
        let (reply, _) = weighed(&cell, cell.request(Method::GET, &path, &cell.tenant, None)).await;
        let attempts = reply.ok()["attempts"].as_array().unwrap().clone();
        attempts.iter().map(|attempt| attempt["attempt"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    // As many as have errors of a megabyte in JSON, six for each byte of these, and the one that runs.
    let numbers = read().await;
    assert_eq!((numbers.len(), numbers[0], numbers[166], numbers[167]), (168, 234, 400, 3000));
    cell.sql(attempts, &[&id, &"", &401, &2_400]).await;
    let numbers = read().await;
    assert_eq!((numbers.len(), numbers[0]), (limits::MAX_PAGE as usize + 1, 1_401));
    cell.result(&id, &lease, json!({"outcome": "succeeded"})).await.ok();
    assert_eq!(read().await.last(), Some(&3_000));
}

#[tokio::test]
async fn a_request_is_accepted_up_to_its_size() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let send = |bytes: usize| {
        let mut body = b"{\"input\": 1}".to_vec();
        body.resize(bytes, b' ');
        let request = cell.request(Method::POST, &format!("/jobs/{job}/run"), &cell.tenant, Some(body));
        cell.send(request)
    };
    send(limits::MAX_REQUEST_BYTES).await.ok();
    send(limits::MAX_REQUEST_BYTES + 1).await.refused(413, "request_too_large");
    assert_eq!(cell.number("select count(*) from executions").await, 1);
}

#[tokio::test]
async fn a_batch_is_accepted_up_to_its_length() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let ids = cell.run_many(&cell.tenant, &job, limits::MAX_BATCH).await;
    let (lease, taken) = cell.dequeue(limits::MAX_DEQUEUE).await;
    assert_eq!(taken.len(), limits::MAX_BATCH);
    let dequeue =
        json!({"lease_id": uuid::Uuid::new_v4(), "worker_id": "w", "limit": limits::MAX_DEQUEUE + 1});
    cell.post("/internal/executions/dequeue", &cell.worker, dequeue).await.refused(422, "invalid_request");
    let before = cell.rows("true").await;
    for (path, field) in [("heartbeats", "leases"), ("results", "results")] {
        let path = format!("/internal/executions/{path}");
        let item = |id: &String| match field {
            "leases" => json!({"execution_id": id, "lease_id": lease}),
            _ => json!({"execution_id": id, "lease_id": lease, "outcome": "succeeded"}),
        };
        let mut items: Vec<_> = ids.iter().map(item).collect();
        items.push(item(&ids[0]));
        let over = json!({field: items});
        cell.post(&path, &cell.worker, over).await.refused(422, "invalid_request");
        assert_eq!(cell.number("select count(*) from leases").await, 1000);
        items.pop();
        let answer = cell.post(&path, &cell.worker, json!({field: items})).await.ok();
        let expected = if field == "leases" { ("state", "held") } else { ("status", "SUCCEEDED") };
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), limits::MAX_BATCH);
        assert!(results.iter().all(|result| result[expected.0] == expected.1), "{path}");
    }
    assert_ne!(cell.rows("true").await, before);
    assert_eq!(cell.number("select count(*) from attempts where status = 'SUCCEEDED'").await, 1000);
}

#[tokio::test]
async fn names_are_accepted_up_to_their_length_and_only_as_one_clean_line() {
    let cell = Cell::new().await;
    let long = "ü".repeat(limits::MAX_NAME_BYTES / 2);
    let good = json!({"name": long, "command": ["true"], "queue": long});
    assert_eq!(cell.post("/jobs", &cell.tenant, good).await.ok()["queue"], json!(long));
    let over = format!("{long}x");
    for bad in ["", " ", " a", "a ", "a\nb", "a\u{0}b", "a\u{7f}b", over.as_str()] {
        let name = |field: &str| json!({"name": "fine", "command": ["true"], field: bad});
        for field in ["name", "queue", "image"] {
            let refused = cell.post("/jobs", &cell.tenant, name(field)).await.refused(422, "invalid_request");
            assert_eq!(refused["errors"][0]["field"], field, "{bad:?}");
        }
        let named = json!({"name": bad});
        let keys = format!("/tenants/{}/keys", cell.tenant_id);
        for path in ["/tenants", "/worker-tokens", &keys] {
            cell.post(path, &cell.admin, named.clone()).await.refused(422, "invalid_request");
        }
        let dequeue = json!({"lease_id": uuid::Uuid::new_v4(), "worker_id": bad, "limit": 1});
        cell.post("/internal/executions/dequeue", &cell.worker, dequeue)
            .await
            .refused(422, "invalid_request");
    }
    assert_eq!(cell.number("select count(*) from jobs").await, 1);
}

#[tokio::test]
async fn json_comes_back_byte_for_byte() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    // Neither of these survives a parser's numbers, strings or maps.
    let strange = r#"{"b": 1.10, "a": 1e400, "b": 123456789012345678901234567890, "\u0000": "\u0000\ud800", "s":  "ü\/"}"#;
    let raw = |method: Method, path: String, token: &str, body: String| {
        let request = cell.request(method, &path, token, Some(body.into_bytes()));
        async move { request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap() }
    };
    let run =
        raw(Method::POST, format!("/jobs/{job}/run"), &cell.tenant, format!(r#"{{"input": {strange}}}"#))
            .await;
    let id = text(&serde_json::from_str::<Value>(&run).unwrap()["execution_id"]);
    let lease = uuid::Uuid::new_v4();
    let body = json!({"lease_id": lease, "worker_id": "w", "limit": 1}).to_string();
    let taken = raw(Method::POST, "/internal/executions/dequeue".into(), &cell.worker, body).await;
    assert!(taken.contains(&format!(r#""input":{strange}"#)), "{taken}");
    let path = format!("/internal/executions/{id}");
    let beat = format!(r#"{{"lease_id": "{lease}", "progress": {strange}}}"#);
    raw(Method::PUT, format!("{path}/heartbeat"), &cell.worker, beat).await;
    let end = format!(r#"{{"lease_id": "{lease}", "outcome": "succeeded", "result": {strange}}}"#);
    raw(Method::PUT, format!("{path}/result"), &cell.worker, end).await;
    let seen = raw(Method::GET, format!("/executions/{id}"), &cell.tenant, String::new()).await;
    for field in ["input", "progress", "result"] {
        assert!(seen.contains(&format!(r#""{field}":{strange}"#)), "{field}: {seen}");
    }
}

#[tokio::test]
async fn times_beyond_what_can_be_kept_are_refused() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let before = cell.rows("true").await;
    let keys = format!("/tenants/{}/keys", cell.tenant_id);
    for time in [
        "-009999-01-01T00:00:00Z",
        "+010000-01-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-01T00:00:00",
        "",
    ] {
        for (path, token, body) in [
            (format!("/jobs/{job}/run"), &cell.tenant, json!({"scheduled_at": time})),
            (format!("/jobs/{job}/runs"), &cell.tenant, json!({"runs": [{}, {"scheduled_at": time}]})),
            ("/executions/dlq/retry".to_owned(), &cell.tenant, json!({"failed_before": time})),
            (keys.clone(), &cell.admin, json!({"name": "k", "expires_at": time})),
            ("/worker-tokens".to_owned(), &cell.admin, json!({"name": "k", "expires_at": time})),
        ] {
            cell.post(&path, token, body).await.refused(422, "invalid_request");
        }
    }
    for ahead in [367, 366 * 100] {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * ahead);
        let body = json!({"scheduled_at": at.to_string()});
        let refused =
            cell.post(&format!("/jobs/{job}/run"), &cell.tenant, body).await.refused(422, "invalid_request");
        assert_eq!(refused["errors"][0]["field"], "scheduled_at");
    }
    assert_eq!(cell.rows("true").await, before);
}
