//! SQLite's own page cache, without a search through all of it at each commit.
//!
//! When SQLite splits a leaf in the middle of a tree it lets two pages change their numbers, and gives one of them, for
//! that moment, the number of the page at the byte 2³⁰, which no database uses. The cache remembers the largest number
//! that it has seen, and so takes the commit, which tells it how many pages the database has, for a database that
//! shrank: it looks at every page that it holds, up to 128 MiB of them, and messages of many spaces split leaves all the
//! time. In a database of more than 1 GiB it does not happen.
//!
//! So here the number of that moment is 0, which no page has either. All else is SQLite's. The number at that byte
//! depends on the size of pages: caches of pages that have another size than SQLite's usual one are left as they are.

use std::{
    collections::HashSet,
    ffi::{c_int, c_uint},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use rusqlite::ffi::{
    SQLITE_CONFIG_GETPCACHE2, SQLITE_CONFIG_PCACHE2, SQLITE_OK, sqlite3_config, sqlite3_pcache,
    sqlite3_pcache_methods2, sqlite3_pcache_page,
};

/// The size of pages unless a database was made with another one.
const PAGE: c_int = 4096;
/// The page of that size at the byte 2³⁰ (`PENDING_BYTE` in SQLite's sources), counted from 1.
const UNUSED: c_uint = (1 << 30) / PAGE as c_uint + 1;

/// What SQLite's own cache does.
static OWN: OnceLock<Own> = OnceLock::new();
/// The caches of pages of another size, by their addresses. Mostly there never was one, and nobody has to wait for the lock.
static OTHERS: OnceLock<Mutex<HashSet<usize>>> = OnceLock::new();

struct Own {
    create: unsafe extern "C" fn(c_int, c_int, c_int) -> *mut sqlite3_pcache,
    rekey: unsafe extern "C" fn(*mut sqlite3_pcache, *mut sqlite3_pcache_page, c_uint, c_uint),
    destroy: unsafe extern "C" fn(*mut sqlite3_pcache),
}

/// Has SQLite use it. Where that does not work, the cache stays as SQLite made it, which is only slower.
///
/// # Safety
/// No connection of the process may be open, nor be opened meanwhile.
pub unsafe fn install() {
    // SAFETY: a structure of pointers to functions, all of which may be absent.
    let mut methods: sqlite3_pcache_methods2 = unsafe { std::mem::zeroed() };
    // SAFETY: the option takes a pointer to that structure, and fills it.
    let told = unsafe { sqlite3_config(SQLITE_CONFIG_GETPCACHE2, &raw mut methods) };
    let (SQLITE_OK, Some(create), Some(rekey), Some(destroy)) =
        (told, methods.xCreate, methods.xRekey, methods.xDestroy)
    else {
        return;
    };
    if OWN.set(Own { create, rekey, destroy }).is_err() {
        return;
    }
    methods.xCreate = Some(self::create);
    methods.xRekey = Some(self::rekey);
    methods.xDestroy = Some(self::destroy);
    // SAFETY: the option takes a pointer to that structure, and copies it. The three functions have the types that it
    // asks for, and do what SQLite's do.
    let _ = unsafe { sqlite3_config(SQLITE_CONFIG_PCACHE2, &raw mut methods) };
}

/// What is known of other caches; `None` where there never was one.
fn others() -> Option<MutexGuard<'static, HashSet<usize>>> {
    OTHERS.get().map(|others| others.lock().unwrap_or_else(PoisonError::into_inner))
}

unsafe extern "C" fn create(page: c_int, extra: c_int, purgeable: c_int) -> *mut sqlite3_pcache {
    let Some(own) = OWN.get() else { return std::ptr::null_mut() };
    // SAFETY: SQLite's own function, with what SQLite gave for it.
    let cache = unsafe { (own.create)(page, extra, purgeable) };
    if page != PAGE && !cache.is_null() {
        OTHERS.get_or_init(Mutex::default);
        if let Some(mut others) = others() {
            others.insert(cache as usize);
        }
    }
    cache
}

unsafe extern "C" fn rekey(
    cache: *mut sqlite3_pcache,
    page: *mut sqlite3_pcache_page,
    old: c_uint,
    new: c_uint,
) {
    let Some(own) = OWN.get() else { return };
    let is_other = others().is_some_and(|others| others.contains(&(cache as usize)));
    let number = |number: c_uint| if number == UNUSED && !is_other { 0 } else { number };
    // SAFETY: SQLite's own function. It is given 0 both when a page takes that number and when it leaves it, so it finds
    // the page; nobody looks for the page by its number in between, and no other page has this one.
    unsafe { (own.rekey)(cache, page, number(old), number(new)) };
}

unsafe extern "C" fn destroy(cache: *mut sqlite3_pcache) {
    let Some(own) = OWN.get() else { return };
    if let Some(mut others) = others() {
        others.remove(&(cache as usize));
    }
    // SAFETY: SQLite's own function, with what SQLite gave for it.
    unsafe { (own.destroy)(cache) };
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use crate::testing::Folder;

    /// Rows in an order in which leaves are split in the middle of the tree, for pages of the usual size and others.
    #[test]
    fn split_leaves_keep_their_rows() {
        let folder = Folder::new("page-cache");
        for page in [512, 4096, 65_536] {
            let file = folder.path().join(format!("{page}.db"));
            let db = Connection::open(&file).expect("a database");
            db.execute_batch(&format!(
                "PRAGMA page_size = {page}; PRAGMA journal_mode = WAL; PRAGMA cache_size = 100;
                 CREATE TABLE row (key INTEGER PRIMARY KEY, text TEXT) WITHOUT ROWID;"
            ))
            .expect("a table");
            let keys: Vec<i64> = (0..20_000).map(|n| n * 7919 % 20_011).collect();
            for some in keys.chunks(100) {
                db.execute_batch("BEGIN").expect("begun");
                for key in some {
                    db.execute("INSERT INTO row VALUES (?1, ?2)", (key, format!("text {key}").repeat(9)))
                        .expect("written");
                }
                db.execute_batch("COMMIT").expect("committed");
            }
            let sound: String =
                db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
            assert_eq!(sound, "ok", "with pages of {page} bytes");
            let (count, wrong): (i64, i64) = db
                .query_row(
                    "SELECT count(*), count(*) FILTER (WHERE text NOT LIKE 'text ' || key || '%') FROM row",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .expect("a count");
            assert_eq!((count, wrong), (20_000, 0), "with pages of {page} bytes");
        }
    }
}
