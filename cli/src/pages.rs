//! Lists that come in pages, and what is found in them by name.

use crate::failure::Refusal;
use crate::output::say;
use jobplane_protocol::{Page, limits};
use jobplane_worker::{Client, Error};
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// How much of a list is wanted.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Limit {
    /// At most so many; pages are followed as needed
    #[arg(long, short, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

/// A list that is read page by page.
pub(crate) struct Pages<'a> {
    client: &'a Client,
    path: String,
    query: Vec<(&'static str, String)>,
    cursor: Option<String>,
    is_over: bool,
}

impl<'a> Pages<'a> {
    /// The list at this path.
    pub(crate) fn of(client: &'a Client, path: impl Into<String>) -> Self {
        Self { client, path: path.into(), query: Vec::new(), cursor: None, is_over: false }
    }

    /// Only what satisfies this, if it is given.
    pub(crate) fn filter(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// The next page of at most so many items; `None` after the last.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self, limit: u32) -> Result<Option<Vec<T>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let mut call = self.client.get(&self.path).query("limit", limit.min(limits::MAX_PAGE));
        for (name, value) in &self.query {
            call = call.query(*name, value);
        }
        if let Some(cursor) = &self.cursor {
            call = call.query("cursor", cursor);
        }
        let page: Page<T> = call.send().await?;
        self.is_over = page.next_cursor.is_none();
        self.cursor = page.next_cursor;
        Ok(Some(page.items))
    }

    /// The first so many items. Says so when they are not all.
    pub(crate) async fn first<T: DeserializeOwned>(mut self, limit: u32) -> Result<Vec<T>, Error> {
        let mut items = Vec::new();
        loop {
            let found = u32::try_from(items.len()).unwrap_or(u32::MAX);
            if found > limit {
                items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                say(&format!("There are more than the {limit} shown; see --limit."));
                return Ok(items);
            }
            // One more than is wanted tells whether there are more.
            match self.next((limit - found).saturating_add(1)).await? {
                Some(more) => items.extend(more),
                None => return Ok(items),
            }
        }
    }

    /// All items: for lists of definitions, which are short.
    pub(crate) async fn all<T: DeserializeOwned>(self) -> Result<Vec<T>, Error> {
        self.first(u32::MAX).await
    }
}

/// The item of a list that has this id or, if there is none, that `is_it`.
///
/// # Errors
/// [`Refusal::NotFound`] when there is none.
pub(crate) async fn named<T: DeserializeOwned>(
    client: &Client,
    list: &str,
    what: &str,
    id_or_name: &str,
    is_it: impl Fn(&T) -> bool,
) -> anyhow::Result<T> {
    if let Ok(id) = id_or_name.parse::<Uuid>() {
        match client.get(format!("{list}/{id}")).send().await {
            Err(error) if error.status() == Some(404) => {}
            answer => return Ok(answer?),
        }
    }
    let mut pages = Pages::of(client, list);
    while let Some(items) = pages.next(limits::MAX_PAGE).await? {
        if let Some(found) = items.into_iter().find(&is_it) {
            return Ok(found);
        }
    }
    let advice = format!("there is no {what} {id_or_name:?}\n  `jobplane {what} list` shows what there is");
    Err(Refusal::NotFound(advice).into())
}
