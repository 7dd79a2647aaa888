//! `jobplane tenant`: who may ask for executions, and how many.

use crate::failure::Refusal;
use crate::pages::{Pages, named};
use crate::session::Session;
use crate::table::{Cell, Table};
use crate::time::since;
use crate::values::{Limit, priority};
use jobplane_protocol::{CreateTenant, CreatedTenant, Priority, Tenant, UpdateTenant};
use jobplane_worker::Client;
use std::process::ExitCode;

/// What can be done with tenants.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a tenant, and its first key, which is shown this once
    Create {
        /// Its name, unique among tenants
        name: String,
        #[command(flatten)]
        limits: Limits,
    },
    /// List all tenants, the newest first
    List,
    /// Show a tenant
    Show {
        /// Its name or id
        tenant: String,
    },
    /// Change a tenant: what is not named stays
    Update {
        /// Its name or id
        tenant: String,
        /// A new name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        limits: Limits,
    },
}

/// A tenant's share and limits.
#[derive(Debug, clap::Args)]
pub(super) struct Limits {
    /// Its share in the fair order, 1 to 1,000 [when new: 1]
    #[arg(long, value_name = "N")]
    weight: Option<i32>,
    /// The highest priority it may ask for: 0, 25, 50, 75 or 100 [when new: 100]
    #[arg(long, value_name = "PRIORITY", value_parser = priority)]
    max_priority: Option<Priority>,
    /// At most so many of its executions run at once, or `none`
    #[arg(long, value_name = "N")]
    max_running: Option<Limit>,
    /// Executions it may ask for per second, or `none`
    #[arg(long, value_name = "N")]
    rate_limit: Option<Limit>,
}

pub(super) async fn run(command: Command, session: &Session) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create { name, limits } => create(name, &limits, session).await?,
        Command::List => list(session).await?,
        Command::Show { tenant } => show(&find(&session.client, &tenant).await?, session)?,
        Command::Update { tenant, name, limits } => {
            let request = UpdateTenant {
                name,
                weight: limits.weight,
                max_priority: limits.max_priority,
                max_running: limits.max_running.map(|limit| limit.0),
                rate_limit_per_second: limits.rate_limit.map(|limit| limit.0),
            };
            Refusal::check_change(&request)?;
            let id = find(&session.client, &tenant).await?.id;
            show(&session.client.patch(format!("/tenants/{id}")).json(&request).send().await?, session)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The tenant of this name or id.
pub(super) async fn find(client: &Client, tenant: &str) -> anyhow::Result<Tenant> {
    named(client, "/tenants", "tenant", tenant, |item: &Tenant| item.name == tenant).await
}

async fn create(name: String, limits: &Limits, session: &Session) -> anyhow::Result<()> {
    let request = CreateTenant {
        name,
        weight: limits.weight,
        max_priority: limits.max_priority,
        max_running: limits.max_running.and_then(|limit| limit.0),
        rate_limit_per_second: limits.rate_limit.and_then(|limit| limit.0),
    };
    Refusal::check(&request)?;
    let call = session.client.post("/tenants").json(&request).unrepeatable();
    let made = call.send::<CreatedTenant>().await;
    let made = made.map_err(|error| Refusal::of_create(error, "tenant", &request.name))?;
    session.output.show(&made, || {
        let mut table = Table::fields();
        table.field("Tenant", &made.name);
        table.field("Id", made.tenant_id);
        table.field("Key, shown this once", &made.api_key);
        table.render(&session.output)
    })
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let tenants: Vec<Tenant> = Pages::of(&session.client, "/tenants").all().await?;
    session.output.show(&tenants, || {
        let mut table =
            Table::new(&["NAME", "ID", "WEIGHT", "MAX PRIORITY", "MAX RUNNING", "RATE/S", "CREATED"]);
        for tenant in &tenants {
            table.row([
                Cell::text(&tenant.name),
                Cell::text(tenant.id),
                Cell::number(tenant.weight),
                Cell::number(i16::from(tenant.max_priority)),
                Cell::maybe_number(tenant.max_running),
                Cell::maybe_number(tenant.rate_limit_per_second),
                Cell::text(since(tenant.created_at)),
            ]);
        }
        table.render(&session.output)
    })
}

fn show(tenant: &Tenant, session: &Session) -> anyhow::Result<()> {
    session.output.show(tenant, || fields(tenant).render(&session.output))
}

/// What there is to tell about a tenant.
pub(super) fn fields(tenant: &Tenant) -> Table {
    let mut table = Table::fields();
    table.field("Tenant", &tenant.name);
    table.field("Id", tenant.id);
    table.field("Weight", tenant.weight);
    table.field("Max priority", i16::from(tenant.max_priority));
    table.field("Max running", Limit(tenant.max_running));
    table.field("Rate per second", Limit(tenant.rate_limit_per_second));
    table.field("Created", since(tenant.created_at));
    table
}
