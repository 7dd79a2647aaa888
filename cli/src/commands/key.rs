//! `jobplane key`: a tenant's keys.

use super::tenant::find;
use crate::failure::Refusal;
use crate::pages::Pages;
use crate::session::Session;
use crate::table::{Cell, Table};
use crate::time::{parse_future, since};
use crate::values::id;
use jiff::Timestamp;
use jobplane_protocol::{CreateKey, CreatedKey, Key, KeyId};
use serde_json::json;
use std::process::ExitCode;

/// What can be done with keys.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a key, which is shown this once
    Create {
        /// The tenant's name or id
        tenant: String,
        /// What the key is for
        name: String,
        /// When it stops working: RFC 3339, or from now, such as 90d [default: never]
        #[arg(long, value_name = "TIME", value_parser = parse_future)]
        expires: Option<Timestamp>,
    },
    /// List a tenant's keys, without their secrets
    List {
        /// The tenant's name or id
        tenant: String,
    },
    /// Revoke a key: it stops working at once
    Revoke {
        /// The tenant's name or id
        tenant: String,
        /// The key's id
        #[arg(value_name = "ID", value_parser = id::<KeyId>)]
        key: KeyId,
    },
}

pub(super) async fn run(command: Command, session: &Session) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create { tenant, name, expires } => {
            let tenant = find(&session.client, &tenant).await?;
            let request = CreateKey { name, expires_at: expires };
            Refusal::check(&request)?;
            let call = session.client.post(format!("/tenants/{}/keys", tenant.id)).json(&request);
            let made: CreatedKey = call.unrepeatable().send().await?;
            session.output.show(&made, || {
                let mut table = Table::fields();
                table.field("Tenant", &tenant.name);
                table.field("Name", &made.name);
                table.field("Id", made.id);
                table.field("Key, shown this once", &made.api_key);
                table.render(&session.output)
            })?;
        }
        Command::List { tenant } => list(&tenant, session).await?,
        Command::Revoke { tenant, key } => {
            let id = find(&session.client, &tenant).await?.id;
            session.client.delete(format!("/tenants/{id}/keys/{key}")).send::<()>().await?;
            let revoked = json!({ "id": key, "revoked": true });
            session.output.show(&revoked, || format!("Key {key} is revoked."))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(tenant: &str, session: &Session) -> anyhow::Result<()> {
    let id = find(&session.client, tenant).await?.id;
    let keys: Vec<Key> = Pages::of(&session.client, format!("/tenants/{id}/keys")).all().await?;
    session.output.show(&keys, || {
        let mut table = Table::new(&["NAME", "ID", "CREATED", "EXPIRES"]);
        for key in &keys {
            table.row([
                Cell::text(&key.name),
                Cell::text(key.id),
                Cell::text(since(key.created_at)),
                Cell::text(key.expires_at.map_or_else(|| "never".to_owned(), since)),
            ]);
        }
        table.render(&session.output)
    })
}
