//! The operator's commands: tenants, keys, worker tokens, queues and workers.

use super::{Shell, ran};
use jobplane_tests::text;
use serde_json::{Value, json};

#[tokio::test]
async fn a_new_tenants_key_speaks_for_it_at_once() {
    let shell = Shell::new().await;
    let made = shell.admin("tenant create acme --weight 3 --rate-limit 9 -o json").await.json();
    let me = ran(shell.with(&text(&made["api_key"]), "whoami -o json")).await.json();
    let me = &me["tenant"];
    assert_eq!((&me["id"], &me["name"]), (&made["tenant_id"], &json!("acme")));
    assert_eq!((&me["weight"], &me["rate_limit_per_second"]), (&json!(3), &json!(9)));
}

#[tokio::test]
async fn a_tenant_is_named_by_its_name_or_its_id() {
    let shell = Shell::new().await;
    let by_name = shell.admin("tenant show first -o json").await.json();
    let by_id = shell.admin(&format!("tenant show {} -o json", shell.cell.tenant_id)).await.json();
    assert_eq!((&by_name["name"], &by_name), (&json!("first"), &by_id));
    assert!(shell.admin("tenant show second").await.refused(4).contains("jobplane tenant list"));
}

#[tokio::test]
async fn what_is_not_named_stays_when_a_tenant_is_changed() {
    let shell = Shell::new().await;
    shell.admin("tenant update first --weight 7 --max-running 2").await.ok();
    let changed = shell.admin("tenant update first --max-running none --name one -o json").await.json();
    assert_eq!((&changed["name"], &changed["weight"]), (&json!("one"), &json!(7)));
    assert_eq!(changed["max_running"], Value::Null);
    let shown = shell.admin("tenant show one").await.ok();
    assert!(shown.lines().any(|line| line == "Max running      none"), "{shown}");
}

#[tokio::test]
async fn a_change_that_changes_nothing_is_a_mistake() {
    let shell = Shell::new().await;
    assert!(shell.admin("tenant update first").await.refused(2).contains("nothing is to change"));
    assert!(shell.admin("tenant update first --weight 0").await.refused(2).contains("weight: "));
}

#[tokio::test]
async fn tenants_are_listed_newest_first() {
    let shell = Shell::new().await;
    shell.admin("tenant create acme --max-running 40").await.ok();
    let list = shell.admin("tenant list").await.ok();
    let rows: Vec<Vec<_>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), ["NAME", "acme", "first"]);
    assert_eq!(rows[1][4..6], ["40", "-"], "{list}");
}

#[tokio::test]
async fn a_taken_name_says_where_to_look() {
    let shell = Shell::new().await;
    assert!(shell.admin("tenant create first").await.refused(1).contains("jobplane tenant show first"));
}

#[tokio::test]
async fn a_key_works_until_it_is_revoked() {
    let shell = Shell::new().await;
    let made = shell.admin("key create first ci --expires 2099-01-31T12:00:00Z -o json").await.json();
    let (id, key) = (text(&made["id"]), text(&made["api_key"]));
    ran(shell.with(&key, "whoami")).await.ok();
    let list = shell.admin("key list first").await.ok();
    assert!(list.contains(&id) && !list.contains(&key), "{list}");
    let list = shell.admin("key list first -o json").await.json();
    assert_eq!((&list[0]["name"], &list[0]["expires_at"]), (&json!("ci"), &json!("2099-01-31T12:00:00Z")));
    shell.admin(&format!("key revoke first {id}")).await.ok();
    assert!(ran(shell.with(&key, "whoami")).await.refused(5).contains("the environment (JOBPLANE_TOKEN)"));
    assert!(!shell.admin("key list first").await.ok().contains(&id));
    shell.admin(&format!("key revoke first {id}")).await.refused(4);
}

#[tokio::test]
async fn a_worker_token_holds_to_its_scope_and_ends_when_it_is_revoked() {
    let shell = Shell::new().await;
    let made = shell.admin("worker-token create fleet --queues a,b --tenants first -o json").await.json();
    let (id, token) = (text(&made["token_id"]), text(&made["token"]));
    let list = shell.admin("worker-token list -o json").await.json();
    let listed = list.as_array().unwrap().iter().find(|one| one["id"] == made["token_id"]).unwrap();
    assert_eq!(listed["queues"], json!(["a", "b"]));
    assert_eq!(listed["tenant_ids"], json!([shell.cell.tenant_id]));
    assert!(!list.to_string().contains(&token));
    let dequeue = |queue: &str| {
        let lease = uuid::Uuid::new_v4();
        json!({"lease_id": lease, "worker_id": "w", "limit": 1, "queues": [queue]})
    };
    let path = "/internal/executions/dequeue";
    shell.cell.post(path, &token, dequeue("a")).await.ok();
    shell.cell.post(path, &token, dequeue("c")).await.refused(403, "out_of_scope");
    shell.admin(&format!("worker-token revoke {id}")).await.ok();
    shell.cell.post(path, &token, dequeue("a")).await.refused(401, "unauthorized");
}

#[tokio::test]
async fn a_paused_queue_hands_out_nothing_until_it_is_resumed() {
    let shell = Shell::new().await;
    let job = shell.cell.new_job(json!({})).await;
    shell.cell.run(&job).await;
    assert_eq!(shell.admin("queues pause default").await.ok(), "Queue default is paused.\n");
    assert!(shell.cell.dequeue(1).await.1.is_empty());
    let list = shell.admin("queues").await.ok();
    let row: Vec<_> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((&row[..5], row[6]), (&["default", "1", "0", "0", "0"][..], "paused"));
    shell.admin("queues resume default").await.ok();
    assert_eq!(shell.cell.dequeue(1).await.1.len(), 1);
    let list = shell.admin("queues -o json").await.json();
    assert_eq!((&list[0]["running"], &list[0]["paused"]), (&json!(1), &json!(false)));
    shell.admin("queues pause nosuch").await.refused(4);
}

#[tokio::test]
async fn workers_are_shown_with_what_they_run() {
    let shell = Shell::new().await;
    assert_eq!(shell.admin("workers -o json").await.json(), json!([]));
    let job = shell.cell.new_job(json!({})).await;
    shell.cell.run_many(&shell.cell.tenant, &job, 2).await;
    shell.cell.dequeue(2).await;
    let list = shell.admin("workers").await.ok();
    let row: Vec<_> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["tester", "2"], "{list}");
}
