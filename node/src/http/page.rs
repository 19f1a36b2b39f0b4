//! Paged lists: `limit` and `cursor` in, `{items, next}` out.

use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// The most items on a page.
pub const MAX_LIMIT: u32 = 200;
/// Items on a page when the caller does not say.
pub const DEFAULT_LIMIT: u32 = 50;

/// The parameters of a paged list.
///
/// A handler with parameters of its own lists these two fields beside them (serde's `flatten` turns numbers of a
/// query into strings) and makes a `Page` with [`Page::new`].
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Items on the page, 1 to 200; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default)]
    pub cursor: Option<String>,
}

impl Page {
    /// A page of these parameters.
    #[must_use]
    pub const fn new(limit: Option<u32>, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }

    /// The number of items that is wanted.
    ///
    /// # Errors
    /// 400 `invalid_query` when it is not between 1 and 200.
    pub fn limit(&self) -> Result<usize, Problem> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit as usize),
            _ => Err(Problem::invalid_query(format!("limit must be between 1 and {MAX_LIMIT}"))),
        }
    }

    /// Where the page starts, read by `T`'s parser.
    ///
    /// # Errors
    /// 400 `invalid_cursor` when the cursor is none that a list of this kind gave.
    pub fn after<T: std::str::FromStr>(&self) -> Result<Option<T>, Problem> {
        self.cursor.as_deref().map(|cursor| cursor.parse().map_err(|_| invalid_cursor())).transpose()
    }
}

/// The problem of a cursor that can't be read.
#[must_use]
pub fn invalid_cursor() -> Problem {
    Problem::with(axum::http::StatusCode::BAD_REQUEST, "invalid_cursor", "the cursor is malformed")
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Items<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page; `null` on the last.
    pub next: Option<String>,
}

impl<T> Items<T> {
    /// A list that fits one page.
    #[must_use]
    pub const fn all(items: Vec<T>) -> Self {
        Self { items, next: None }
    }

    /// A page out of up to `limit + 1` items: whether there is one too many says whether another page follows,
    /// whose cursor `key` makes of this page's last item.
    pub fn cut(mut items: Vec<T>, limit: usize, key: impl FnOnce(&T) -> String) -> Self {
        if items.len() <= limit {
            return Self::all(items);
        }
        items.truncate(limit);
        let next = items.last().map(key);
        Self { items, next }
    }
}
