//! What a deployment asks for before its functions go live: the database's user and schema, by a custom resource of
//! CloudFormation or by hand.

use crate::config::Database;
use crate::database::Login;
use crate::{Config, Error, aws, migrate, store};
use serde_json::{Value, json};
use std::time::Duration;

const ROLE: &str = include_str!("store/role.sql");
/// Connections, where the settings do not say.
const POOL_SIZE: i32 = 1;
/// What the resource is called: there is one schema to a database, so that no update ever replaces it.
const RESOURCE: &str = "jobplane-schema";
/// How often the answer is sent at most: without one the deployment waits for its timeout.
const TRIES: u32 = 5;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(2);
/// The most characters of a reason that CloudFormation shows.
const REASON_LENGTH: usize = 1000;

/// The event of a custom resource.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Asked {
    request_type: String,
    #[serde(rename = "ResponseURL")]
    response_url: String,
    stack_id: String,
    request_id: String,
    logical_resource_id: String,
}

/// Does what the event asks for. CloudFormation is told at the address that it named; without an address this answers, and
/// fails, itself.
pub(crate) async fn deploy(event: Value) -> Result<Value, Error> {
    if event.get("ResponseURL").is_none() {
        return Ok(json!({ "schema_version": prepare(&Config::from_env(POOL_SIZE)?.database).await? }));
    }
    let asked: Asked = serde_json::from_value(event).map_err(|error| Error::Stored(error.to_string()))?;
    let done = match asked.request_type.as_str() {
        // What is in the database stays: it goes with the database.
        "Delete" => Ok(None),
        _ => match Config::from_env(POOL_SIZE) {
            Ok(config) => prepare(&config.database).await.map(Some),
            Err(error) => Err(error.into()),
        },
    };
    let mut answer = json!({
        "Status": "SUCCESS", "PhysicalResourceId": RESOURCE, "StackId": asked.stack_id, "RequestId": asked.request_id,
        "LogicalResourceId": asked.logical_resource_id,
    });
    match done {
        Ok(version) => answer["Data"] = json!({ "SchemaVersion": version }),
        Err(error) => {
            tracing::error!(cause = %error, "the deployment fails");
            answer["Status"] = json!("FAILED");
            answer["Reason"] = json!(error.to_string().chars().take(REASON_LENGTH).collect::<String>());
        }
    }
    tell(&asked.response_url, &answer).await?;
    Ok(Value::Null)
}

async fn tell(url: &str, answer: &Value) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match aws::put(url, answer.to_string()).await {
            Err(error) if tries < TRIES => {
                tracing::warn!(cause = %error, "CloudFormation was not told; it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
            told => return Ok(told?),
        }
    }
}

/// Makes the functions' user if an administrator's secret is given, then brings the database to this build's schema as that
/// user, and answers its version.
///
/// # Errors
/// As [`migrate`], and when the secrets or the administrator's session cannot be had.
pub async fn prepare(database: &Database) -> Result<i32, Error> {
    if let Some(master) = &database.master_secret {
        let (user, password) = Login::new(database)?.user().await?;
        let session = Login::new(database)?.with_secret(master).connect().await?;
        let binds: [&dyn store::Bind; 4] = [&user, &password, &database.connections, &database.iam];
        for row in store::rows(&session, ROLE, &binds).await? {
            session.batch_execute(row.try_get("statement")?).await?;
        }
        session.close().await;
    }
    migrate(database).await
}
