//! The operator's side: tenants, keys, worker tokens, queues, workers, health.

use crate::job::present;
use crate::schema::Name;
use crate::{Check, Checks, ExecutionId, KeyId, Page, Priority, TenantId, TokenId, limits};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /tenants`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// Unique among tenants.
    #[schemars(with = "Name")]
    pub name: String,
    /// Its share in the fair order against other tenants, 1 to 1,000; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_WEIGHT))]
    pub weight: Option<i32>,
    /// The highest priority it may ask for; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_priority: Option<Priority>,
    /// At most so many of its executions run at once; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_RUNNING_LIMIT))]
    pub max_running: Option<i32>,
    /// Executions it may ask for per second, with a burst of one second's worth; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_RATE_PER_SECOND))]
    pub rate_limit_per_second: Option<i32>,
}

/// `PATCH /tenants/{id}`: what is absent stays; null takes a limit away.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateTenant {
    /// A new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    pub name: Option<String>,
    /// A new weight, for executions asked for from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_WEIGHT))]
    pub weight: Option<i32>,
    /// A new highest priority, for executions asked for from now on. A run that names none has its job's, or this if it
    /// is lower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_priority: Option<Priority>,
    /// A new limit on how many run at once, or null for none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_RUNNING_LIMIT))]
    pub max_running: Option<Option<i32>>,
    /// A new limit on executions asked for per second, or null for none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_RATE_PER_SECOND))]
    pub rate_limit_per_second: Option<Option<i32>>,
}

impl Check for CreateTenant {
    fn check(&self, checks: &mut Checks) {
        UpdateTenant {
            name: Some(self.name.clone()),
            weight: self.weight,
            max_priority: self.max_priority,
            max_running: self.max_running.map(Some),
            rate_limit_per_second: self.rate_limit_per_second.map(Some),
        }
        .check(checks);
    }
}

impl Check for UpdateTenant {
    fn check(&self, checks: &mut Checks) {
        if let Some(name) = &self.name {
            checks.name("name", name);
        }
        if let Some(weight) = self.weight {
            checks.range("weight", weight, 1..=limits::MAX_WEIGHT);
        }
        if let Some(Some(limit)) = self.max_running {
            checks.range("max_running", limit, 1..=limits::MAX_RUNNING_LIMIT);
        }
        if let Some(Some(rate)) = self.rate_limit_per_second {
            checks.range("rate_limit_per_second", rate, 1..=limits::MAX_RATE_PER_SECOND);
        }
    }
}

/// A tenant as it stands.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Its share in the fair order.
    pub weight: i32,
    /// The highest priority it may ask for.
    pub max_priority: Priority,
    /// At most so many of its executions run at once.
    pub max_running: Option<i32>,
    /// Executions it may ask for per second.
    pub rate_limit_per_second: Option<i32>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A page of tenants.
pub type TenantPage = Page<Tenant>;

/// A new tenant and its first key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CreatedTenant {
    /// Its id.
    pub tenant_id: TenantId,
    /// Its name.
    pub name: String,
    /// Its first key in clear: shown this once, kept only as a hash.
    pub api_key: String,
}

/// `GET /tenant`: the caller itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TenantSelf {
    /// Who the key speaks for.
    pub tenant: Tenant,
    /// Its executions that a worker holds.
    pub running: i64,
    /// Its executions that may start as soon as a worker is free.
    pub waiting: i64,
    /// Its executions that wait for their time.
    pub delayed: i64,
    /// Whether the counts are exact: each is cut off at 10,000.
    pub exact: bool,
}

/// `POST /tenants/{id}/keys`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// What it is for.
    #[schemars(with = "Name")]
    pub name: String,
    /// When it stops working; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Check for CreateKey {
    fn check(&self, checks: &mut Checks) {
        checks.name("name", &self.name);
    }
}

/// One of a tenant's keys, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// What it is for.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

/// A page of keys; revoked ones are left out.
pub type KeyPage = Page<Key>;

/// A new key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CreatedKey {
    /// Its id.
    pub id: KeyId,
    /// What it is for.
    pub name: String,
    /// The key in clear: shown this once.
    pub api_key: String,
}

/// `POST /worker-tokens`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWorkerToken {
    /// What it is for.
    #[schemars(with = "Name")]
    pub name: String,
    /// The only queues it may take from; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Name>>", length(min = 1, max = limits::MAX_QUEUES), extend("uniqueItems" = true))]
    pub queues: Option<Vec<String>>,
    /// The only tenants whose executions it may hold; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::MAX_TENANTS), extend("uniqueItems" = true))]
    pub tenant_ids: Option<Vec<TenantId>>,
    /// When it stops working; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Check for CreateWorkerToken {
    fn check(&self, checks: &mut Checks) {
        checks.name("name", &self.name);
        if let Some(queues) = &self.queues {
            checks.queues("queues", queues);
        }
        if let Some(tenants) = &self.tenant_ids {
            checks.tenants("tenant_ids", tenants);
        }
    }
}

/// A worker token, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct WorkerToken {
    /// Its id.
    pub id: TokenId,
    /// What it is for.
    pub name: String,
    /// The only queues it may take from.
    pub queues: Option<Vec<String>>,
    /// The only tenants whose executions it may hold.
    pub tenant_ids: Option<Vec<TenantId>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

/// A page of worker tokens; revoked ones are left out.
pub type WorkerTokenPage = Page<WorkerToken>;

/// A new worker token.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CreatedWorkerToken {
    /// Its id.
    pub token_id: TokenId,
    /// What it is for.
    pub name: String,
    /// The token in clear: shown this once.
    pub token: String,
}

/// The depth of one queue.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Executions that may start as soon as a worker is free.
    pub waiting: i64,
    /// Executions that wait for their time.
    pub delayed: i64,
    /// Executions that a worker holds.
    pub running: i64,
    /// Executions that wait until fewer of their tenant or job run. Part of none of the others.
    pub parked: i64,
    /// Whether the counts are exact: each is cut off at 10,000.
    pub exact: bool,
    /// How long the oldest of the next 1,000 in line has waited, in seconds; null when none waits.
    pub oldest_waiting_seconds: Option<f64>,
    /// When this was counted.
    pub as_of: Timestamp,
    /// Whether nothing is taken from it at present.
    pub paused: bool,
}

/// A page of queues, by name.
pub type QueuePage = Page<Queue>;

/// `PATCH /queues/{name}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateQueue {
    /// Whether to hand out nothing from it; what runs goes on.
    pub paused: bool,
}

/// A worker that was heard from in the last hour.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Worker {
    /// The name it gave itself.
    pub worker_id: String,
    /// The token it uses.
    pub token_id: TokenId,
    /// When it last asked for work, to within half a minute.
    pub last_seen_at: Timestamp,
    /// How many executions it holds.
    pub running: i64,
    /// Some of them, at most 100.
    pub executions: Vec<ExecutionId>,
}

/// A page of workers, the one heard from last first.
pub type WorkerPage = Page<Worker>;

/// `GET /healthz`: the process is there.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Always `ok`.
    pub status: String,
    /// The version of the control plane.
    pub version: String,
}

/// `GET /readyz`: the database is there, with the schema this build wants.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Readiness {
    /// Always `ok`; anything else is a 503.
    pub status: String,
    /// The version of the newest migration that was applied.
    pub schema_version: i32,
}
