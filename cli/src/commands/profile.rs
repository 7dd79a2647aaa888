//! `jobplane profile`: keeps URLs and tokens under names.

use super::Globals;
use crate::failure::Refusal;
use crate::output::Output;
use crate::profile::{Profiles, path};
use crate::table::{Cell, Table};
use anyhow::Context;
use jobplane_protocol::{Token, TokenKind};
use serde::Serialize;
use serde_json::json;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;

/// What can be done with profiles.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make or change a profile: what is not given stays; the first one becomes the current one
    Set(Set),
    /// List all profiles, without their tokens
    List,
    /// Delete a profile and the tokens in it
    Delete {
        /// The profile's name
        name: String,
    },
    /// Use a profile from now on
    Use {
        /// The profile's name
        name: String,
    },
}

/// What to keep, besides --url and --token.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For a token, `-` reads a line of standard input, which keeps it out of the shell's history."
)]
pub(super) struct Set {
    /// The profile's name
    name: String,
    /// A file that holds the tenant key, instead of the key itself
    #[arg(long, value_name = "PATH", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The operator's token, for the commands that need it
    #[arg(long, value_name = "TOKEN")]
    admin_token: Option<String>,
}

pub(super) fn run(command: Command, globals: &Globals, output: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Set(args) => set(&args, globals, output)?,
        Command::List => list(output)?,
        Command::Delete { name } => delete(&name, output)?,
        Command::Use { name } => {
            let mut profiles = Profiles::load()?;
            profiles.chosen(Some(&name))?;
            profiles.current = Some(name.clone());
            profiles.save()?;
            output.show(&json!({ "current": name }), || format!("Profile {name} is used from now on."))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn set(args: &Set, globals: &Globals, output: &Output) -> anyhow::Result<()> {
    let mut profiles = Profiles::load()?;
    let profile = profiles.profiles.entry(args.name.clone()).or_default();
    if let Some(url) = &globals.url {
        // The client judges the URL before it is kept.
        jobplane_worker::Client::new(url, jobplane_worker::Credential::None)?;
        profile.url = Some(url.clone());
    }
    if profile.url.is_none() {
        return Err(Refusal::Usage("a new profile needs --url".to_owned()).into());
    }
    if let Some(token) = &globals.token {
        profile.token = Some(read_token(token, TokenKind::Tenant, "--token")?);
        profile.token_file = None;
    }
    if let Some(file) = &args.token_file {
        profile.token_file = Some(std::path::absolute(file)?);
        profile.token = None;
    }
    if let Some(token) = &args.admin_token {
        profile.admin_token = Some(read_token(token, TokenKind::Admin, "--admin-token")?);
    }
    profiles.current.get_or_insert_with(|| args.name.clone());
    profiles.save()?;
    let path = path()?;
    let is_current = profiles.current.as_ref() == Some(&args.name);
    output.show(&json!({ "name": args.name, "is_current": is_current }), || {
        format!("Profile {} is kept in {}.", args.name, path.display())
    })
}

fn delete(name: &str, output: &Output) -> anyhow::Result<()> {
    let mut profiles = Profiles::load()?;
    profiles.chosen(Some(name))?;
    profiles.profiles.remove(name);
    let was_current = profiles.current.take_if(|current| current == name).is_some();
    profiles.save()?;
    let none = if was_current { "; none is used from now on" } else { "" };
    output.show(&json!({ "name": name, "deleted": true }), || format!("Profile {name} is deleted{none}."))
}

/// The token itself or, for `-`, the next line of stdin. It must be of the kind that goes there.
fn read_token(given: &str, kind: TokenKind, flag: &str) -> anyhow::Result<String> {
    let mut text = given.to_owned();
    if given == "-" {
        text.clear();
        std::io::stdin().lock().read_line(&mut text).context("cannot read the token from standard input")?;
    }
    let text = text.trim();
    let advice = match Token::parse(text).map(|token| token.kind()) {
        Some(found) if found == kind => return Ok(text.to_owned()),
        Some(_) => format!("{flag} takes a token that begins with {}", kind.prefix()),
        None => format!("{flag}: that is not a whole token; one begins with {}", kind.prefix()),
    };
    Err(Refusal::Token(advice).into())
}

/// What is told about a profile: not its tokens.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    url: Option<&'a str>,
    has_token: bool,
    has_admin_token: bool,
    is_current: bool,
}

fn list(output: &Output) -> anyhow::Result<()> {
    let Profiles { current, profiles } = Profiles::load()?;
    let mut listed = Vec::new();
    for (name, profile) in &profiles {
        listed.push(Listed {
            name,
            url: profile.url.as_deref(),
            has_token: profile.token.is_some() || profile.token_file.is_some(),
            has_admin_token: profile.admin_token.is_some(),
            is_current: current.as_ref() == Some(name),
        });
    }
    output.show(&listed, || {
        let yes = |has: bool| Cell::text(if has { "yes" } else { "no" });
        let mut table = Table::new(&["", "NAME", "URL", "TENANT KEY", "ADMIN TOKEN"]);
        for one in &listed {
            table.row([
                Cell::text(if one.is_current { "*" } else { "" }),
                Cell::text(one.name),
                Cell::maybe(one.url),
                yes(one.has_token),
                yes(one.has_admin_token),
            ]);
        }
        table.render(output)
    })
}
