//! `jobplane worker-token`: what workers authenticate with.

use super::tenant::find;
use crate::failure::Refusal;
use crate::pages::Pages;
use crate::session::Session;
use crate::table::{Cell, Table};
use crate::time::{parse_future, since};
use crate::values::id;
use jiff::Timestamp;
use jobplane_protocol::{CreateWorkerToken, CreatedWorkerToken, TokenId, WorkerToken};
use serde_json::json;
use std::process::ExitCode;

/// What can be done with worker tokens.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a worker token, which is shown this once
    Create(Create),
    /// List worker tokens, without their secrets
    List,
    /// Revoke a worker token: its workers get no more work
    Revoke {
        /// The token's id
        #[arg(value_parser = id::<TokenId>)]
        id: TokenId,
    },
}

/// What to make.
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// What the token is for
    name: String,
    /// The only queues it may take from, with commas between [default: all]
    #[arg(long, value_delimiter = ',', value_name = "QUEUE,…")]
    queues: Option<Vec<String>>,
    /// The only tenants whose executions it may hold, by name or id, with commas between [default: all]
    #[arg(long, value_delimiter = ',', value_name = "TENANT,…")]
    tenants: Option<Vec<String>>,
    /// When it stops working: RFC 3339, or from now, such as 90d [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_future)]
    expires: Option<Timestamp>,
}

pub(super) async fn run(command: Command, session: &Session) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => create(args, session).await?,
        Command::List => list(session).await?,
        Command::Revoke { id } => {
            session.client.delete(format!("/worker-tokens/{id}")).send::<()>().await?;
            let revoked = json!({ "token_id": id, "revoked": true });
            session.output.show(&revoked, || format!("Worker token {id} is revoked."))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: Create, session: &Session) -> anyhow::Result<()> {
    let mut request = CreateWorkerToken {
        name: args.name,
        queues: args.queues,
        tenant_ids: None,
        expires_at: args.expires,
    };
    for tenant in args.tenants.iter().flatten() {
        let id = find(&session.client, tenant).await?.id;
        request.tenant_ids.get_or_insert_default().push(id);
    }
    Refusal::check(&request)?;
    let call = session.client.post("/worker-tokens").json(&request);
    let made: CreatedWorkerToken = call.unrepeatable().send().await?;
    session.output.show(&made, || {
        let mut table = Table::fields();
        table.field("Name", &made.name);
        table.field("Id", made.token_id);
        table.field("Token, shown this once", &made.token);
        table.render(&session.output)
    })
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let tokens: Vec<WorkerToken> = Pages::of(&session.client, "/worker-tokens").all().await?;
    session.output.show(&tokens, || {
        let all = || "all".to_owned();
        let mut table = Table::new(&["NAME", "ID", "QUEUES", "TENANTS", "CREATED", "EXPIRES"]);
        for token in &tokens {
            let tenants = token
                .tenant_ids
                .as_ref()
                .map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
            table.row([
                Cell::text(&token.name),
                Cell::text(token.id),
                Cell::cut(token.queues.as_ref().map_or_else(all, |queues| queues.join(","))),
                Cell::cut(tenants.unwrap_or_else(all)),
                Cell::text(since(token.created_at)),
                Cell::text(token.expires_at.map_or_else(|| "never".to_owned(), since)),
            ]);
        }
        table.render(&session.output)
    })
}
