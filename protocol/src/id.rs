//! The ids, each a type of its own so that one cannot stand in for another.

use derive_more::{Display, FromStr};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Names a tenant: whose jobs these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, FromStr, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TenantId(pub Uuid);

/// Names a job: a definition that executions are asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, FromStr, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

/// Names an execution: one asked-for run of a job. UUIDv7 by the database's clock, so ids sort by
/// the time they were asked for (to the microsecond).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, FromStr, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ExecutionId(pub Uuid);

/// Names a lease. The worker picks a fresh random one for every dequeue; repeating the call with
/// the same one answers the same executions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, FromStr, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct LeaseId(pub Uuid);

/// Names one of a tenant's API keys. Not the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, FromStr, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct KeyId(pub Uuid);

/// Names a worker token. Not the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, FromStr, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TokenId(pub Uuid);

impl LeaseId {
    /// A fresh random lease id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}
