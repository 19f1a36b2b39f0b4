//! The write-ahead log, written a transaction at a time.
//!
//! SQLite writes each page of a transaction with two calls: 24 bytes that say which page it is, and the page. As they do
//! not end where the system's own pages do, a page of 4 KiB becomes dirty in three places, and a commit of ten pages is
//! twenty calls. Together they were a quarter of the writer's time. Here they are kept until the frame that ends the
//! transaction, and leave in one call.
//!
//! Nobody can tell the difference. Until a transaction has its last frame, others do not look at the frames that it has
//! in the log, and a log that ends before it is read as if it had none. What the same connection asks of the log (a page
//! that it had to put there for want of memory, the log's size, a sync) makes it leave at once, and so does a write of
//! another kind, which is then passed on as it is: the header of a new log, and what SQLite mends in frames that it has
//! written. What is kept when a transaction ends without such a frame was taken back. It must not be written later, when
//! another connection's frames may be in its place: so the database's file is watched for the lock that ends with each
//! transaction. All else, and all other files, are left to SQLite's own functions. (SQLite calls such a layer a VFS shim.)

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr::NonNull,
    sync::OnceLock,
};

use rusqlite::ffi::{
    SQLITE_IOERR, SQLITE_OK, SQLITE_OPEN_MAIN_DB, SQLITE_OPEN_WAL, SQLITE_SHM_EXCLUSIVE, SQLITE_SHM_UNLOCK,
    sqlite3_database_file_object, sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods,
    sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

/// Bytes of what stands before each page in the log (section 4.1 of SQLite's file format).
const HEADER: usize = 24;
/// Bytes that are kept at the most: SQLite's own function takes no more at once (`seekAndWriteFd` in its sources).
const MOST: usize = 0x1_ffff;

/// What is to be written to the log and has not been yet: whole frames of a transaction without its end.
#[derive(Debug, Default)]
struct Kept {
    /// Where in the file it belongs.
    at: i64,
    bytes: Vec<u8>,
    /// Up to where the log is written, what is kept included.
    end: i64,
    /// See [`Kept::lose`].
    is_lost: bool,
    /// A header was kept, its page comes next.
    frame: Option<Frame>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// One of several.
    Inner,
    /// The last of its transaction.
    Last,
}

/// What to do with a write.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: it is kept.
    Nothing,
    /// What is kept has to be written now, with this write in it.
    WriteKept,
    /// It is of another kind: what is kept has to be written now, and then this.
    Both,
    /// A part of the transaction is lost.
    Refuse,
}

impl Kept {
    fn add(&mut self, data: &[u8], at: i64) -> Next {
        if self.is_lost {
            return Next::Refuse;
        }
        let follows = at == self.end;
        self.end = at.saturating_add(data.len() as i64);
        let frame = self.frame.take();
        match (frame, <&[u8; HEADER]>::try_from(data)) {
            (None, Ok(header)) if follows => {
                // Bytes 4 to 8: how many pages the database has after the transaction, in its last frame; else 0.
                let is_last = header[4..8].iter().any(|byte| *byte != 0);
                self.frame = Some(if is_last { Frame::Last } else { Frame::Inner });
                self.keep(data, at);
                Next::Nothing
            }
            (Some(frame), Err(_)) if follows => {
                self.keep(data, at);
                let fits_another = self.bytes.len() + HEADER + data.len() <= MOST;
                if frame == Frame::Last || !fits_another { Next::WriteKept } else { Next::Nothing }
            }
            _ => Next::Both,
        }
    }

    /// Lets go of what is kept.
    fn forget(&mut self) {
        self.frame = None;
        self.bytes.clear();
    }

    /// What is kept could not be written, and SQLite, which believed it to be in the log, was told so. It takes the
    /// transaction back; but should it hear of it as it reads, for a statement that it can take back alone, it might go on.
    /// No later frame may follow then, least of all one that ends the transaction.
    fn lose(&mut self) {
        self.forget();
        self.is_lost = true;
    }

    /// The transaction has ended, one way or the other.
    fn end(&mut self) {
        self.forget();
        self.is_lost = false;
    }

    fn keep(&mut self, data: &[u8], at: i64) {
        if self.bytes.is_empty() {
            self.at = at;
        }
        self.bytes.extend_from_slice(data);
    }
}

/// What SQLite has for an open database or log: it knows the first field, and gives the space behind to its own functions.
#[repr(C)]
struct File {
    file: sqlite3_file,
    /// What is kept for this log.
    kept: Option<Box<Kept>>,
    /// The log of this database, or the database of this log, while both are open.
    other: Option<NonNull<File>>,
}

/// Where in that space the file of its own functions begins.
const INNER: usize = size_of::<File>().next_multiple_of(16);
/// Which of the locks in a database's shared memory is held for a transaction that writes (`WAL_WRITE_LOCK`).
const WRITE_LOCK: c_int = 0;
const NAME: &CStr = c"mychat";

/// How SQLite opens files without this.
struct Own {
    vfs: NonNull<sqlite3_vfs>,
    open: unsafe extern "C" fn(
        *mut sqlite3_vfs,
        sqlite3_filename,
        *mut sqlite3_file,
        c_int,
        *mut c_int,
    ) -> c_int,
}

// SAFETY: SQLite's own description of the system lives as long as the process, and SQLite calls it from any thread.
unsafe impl Send for Own {}
// SAFETY: as above.
unsafe impl Sync for Own {}

static OWN: OnceLock<Own> = OnceLock::new();

/// Has SQLite open its files with it. Where that does not work, all stays as SQLite made it, which is only slower.
///
/// # Safety
/// No connection of the process may be open, nor be opened meanwhile.
pub unsafe fn install() {
    // SAFETY: without a name it gives the usual one, or null.
    let Some(vfs) = NonNull::new(unsafe { sqlite3_vfs_find(std::ptr::null()) }) else { return };
    // SAFETY: it is SQLite's, which lets it be, and made of plain fields.
    let mut ours = unsafe { vfs.as_ptr().read() };
    let Some(open) = ours.xOpen else { return };
    let Ok(more) = c_int::try_from(INNER) else { return };
    if OWN.set(Own { vfs, open }).is_err() {
        return;
    }
    ours.szOsFile += more;
    ours.pNext = std::ptr::null_mut();
    ours.zName = NAME.as_ptr().cast::<c_char>();
    ours.xOpen = Some(self::open);
    // SAFETY: it is never given back, so SQLite may keep it for ever. All other functions are SQLite's own, which do not
    // look at whose description they are called for.
    let _ = unsafe { sqlite3_vfs_register(Box::leak(Box::new(ours)), 1) };
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    got: *mut c_int,
) -> c_int {
    let Some(own) = OWN.get() else { return SQLITE_IOERR };
    let methods = match flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL) {
        SQLITE_OPEN_MAIN_DB => &raw const DATABASE,
        SQLITE_OPEN_WAL => &raw const LOG,
        // SAFETY: SQLite's own function with what it gave, in more space than it needs.
        _ => return unsafe { (own.open)(own.vfs.as_ptr(), name, file, flags, got) },
    };
    let new = file.cast::<File>();
    let closed = sqlite3_file { pMethods: std::ptr::null() };
    // SAFETY: SQLite gave as much space as `install` asked for, aligned to 8 bytes; nothing is in it yet.
    unsafe { new.write(File { file: closed, kept: None, other: None }) };
    // SAFETY: behind it is as much space as SQLite's own function needs.
    let opened = unsafe { (own.open)(own.vfs.as_ptr(), name, inner(file), flags, got) };
    if opened != SQLITE_OK {
        return opened;
    }
    // SAFETY: written above.
    unsafe { (*new).file.pMethods = methods };
    if flags & SQLITE_OPEN_WAL != 0 {
        // SAFETY: `name` is what SQLite gave for a log. What it gives is the file of an open database, or null; one with
        // these functions is a `File`, and another one than the log.
        unsafe {
            let database = sqlite3_database_file_object(name);
            if database.as_ref().is_some_and(|file| std::ptr::eq(file.pMethods, &raw const DATABASE)) {
                (*new).kept = Some(Box::default());
                (*new).other = NonNull::new(database.cast());
                (*database.cast::<File>()).other = NonNull::new(new);
            }
        }
    }
    SQLITE_OK
}

/// The file of SQLite's own functions.
///
/// # Safety
/// `file` is a [`File`] with the space behind it.
unsafe fn inner(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: the space is one piece.
    unsafe { file.cast::<u8>().add(INNER).cast() }
}

/// Calls one of SQLite's own functions for a file.
macro_rules! own {
    ($file:ident . $function:ident ( $($argument:expr),* )) => {{
        // SAFETY: a file that is open, whose functions SQLite's own `open` has set; what is passed on is what SQLite
        // gave, or bytes that live beyond the call.
        unsafe {
            let inner = inner($file);
            match (*inner).pMethods.as_ref().and_then(|methods| methods.$function) {
                Some(function) => function(inner, $($argument),*),
                None => SQLITE_IOERR,
            }
        }
    }};
}

/// What is kept for a log; `None` where the log is not watched, since its database is not.
///
/// # Safety
/// `file` is a [`File`]; SQLite lets one thread at a time use those of a connection.
unsafe fn kept<'a>(file: *mut sqlite3_file) -> Option<&'a mut Kept> {
    // SAFETY: by this function's own condition.
    unsafe { (*file.cast::<File>()).kept.as_deref_mut() }
}

/// Writes what is kept.
///
/// # Safety
/// As for [`kept`].
unsafe fn write_kept(file: *mut sqlite3_file) -> c_int {
    // SAFETY: by this function's own condition.
    let Some(kept) = (unsafe { kept(file) }).filter(|kept| !kept.bytes.is_empty()) else { return SQLITE_OK };
    let (bytes, at) = (std::mem::take(&mut kept.bytes), kept.at);
    let written = match c_int::try_from(bytes.len()) {
        Ok(length) => own!(file.xWrite(bytes.as_ptr().cast(), length, at)),
        Err(_) => SQLITE_IOERR,
    };
    kept.bytes = bytes;
    if written == SQLITE_OK {
        kept.forget();
    } else {
        kept.lose();
    }
    written
}

unsafe extern "C" fn write_log(
    file: *mut sqlite3_file,
    data: *const c_void,
    length: c_int,
    at: sqlite3_int64,
) -> c_int {
    let Ok(bytes) = usize::try_from(length) else { return SQLITE_IOERR };
    // SAFETY: SQLite gives as many bytes, and a log (these are no other file's functions).
    let (bytes, kept) = unsafe { (std::slice::from_raw_parts(data.cast::<u8>(), bytes), kept(file)) };
    match kept.map_or(Next::Both, |kept| kept.add(bytes, at)) {
        Next::Nothing => SQLITE_OK,
        Next::Refuse => SQLITE_IOERR,
        // SAFETY: as above.
        Next::WriteKept => unsafe { write_kept(file) },
        // SAFETY: as above.
        Next::Both => match unsafe { write_kept(file) } {
            SQLITE_OK => own!(file.xWrite(data, length, at)),
            error => error,
        },
    }
}

/// Functions of a log that write what is kept before they do what SQLite's do.
macro_rules! after_kept {
    ($($name:ident = $function:ident ( $($argument:ident : $kind:ty),* );)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $kind)*) -> c_int {
            // SAFETY: these are no other file's functions.
            match unsafe { write_kept(file) } {
                SQLITE_OK => own!(file.$function($($argument),*)),
                error => error,
            }
        }
    )*};
}

after_kept! {
    read_log = xRead(into: *mut c_void, length: c_int, at: sqlite3_int64);
    truncate_log = xTruncate(size: sqlite3_int64);
    sync_log = xSync(flags: c_int);
    size_of_log = xFileSize(size: *mut sqlite3_int64);
}

/// Functions that do what SQLite's do.
macro_rules! same {
    ($($name:ident = $function:ident ( $($argument:ident : $kind:ty),* );)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $kind)*) -> c_int {
            own!(file.$function($($argument),*))
        }
    )*};
}

same! {
    read = xRead(into: *mut c_void, length: c_int, at: sqlite3_int64);
    write = xWrite(data: *const c_void, length: c_int, at: sqlite3_int64);
    truncate = xTruncate(size: sqlite3_int64);
    sync = xSync(flags: c_int);
    size = xFileSize(size: *mut sqlite3_int64);
    lock = xLock(level: c_int);
    unlock = xUnlock(level: c_int);
    check_lock = xCheckReservedLock(is: *mut c_int);
    control = xFileControl(what: c_int, with: *mut c_void);
    sector = xSectorSize();
    characteristics = xDeviceCharacteristics();
    map_shared = xShmMap(part: c_int, size: c_int, extend: c_int, at: *mut *mut c_void);
    unmap_shared = xShmUnmap(delete: c_int);
    fetch = xFetch(at: sqlite3_int64, length: c_int, page: *mut *mut c_void);
    unfetch = xUnfetch(at: sqlite3_int64, page: *mut c_void);
}

unsafe extern "C" fn shared_barrier(file: *mut sqlite3_file) {
    // SAFETY: a database that is open, whose functions SQLite's own `open` has set.
    unsafe {
        let inner = inner(file);
        if let Some(barrier) = (*inner).pMethods.as_ref().and_then(|methods| methods.xShmBarrier) {
            barrier(inner);
        }
    }
}

/// Locks or unlocks a database; when its transaction ends, nothing of it may be kept any more.
unsafe extern "C" fn lock_shared(file: *mut sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    if first == WRITE_LOCK && flags == SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE {
        // SAFETY: a database's function. Its log is open for as long as it is known here.
        let kept = unsafe { (*file.cast::<File>()).other.and_then(|log| kept(log.as_ptr().cast())) };
        if let Some(kept) = kept {
            kept.end();
        }
    }
    own!(file.xShmLock(first, count, flags))
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: a file of ours, and the other one that it knows is open.
    unsafe {
        // Still kept is only what no transaction ended with.
        (*file.cast::<File>()).kept = None;
        if let Some(other) = (*file.cast::<File>()).other.take() {
            (*other.as_ptr()).other = None;
        }
    }
    own!(file.xClose())
}

static DATABASE: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(map_shared),
    xShmLock: Some(lock_shared),
    xShmBarrier: Some(shared_barrier),
    xShmUnmap: Some(unmap_shared),
    xFetch: Some(fetch),
    xUnfetch: Some(unfetch),
};

static LOG: sqlite3_io_methods = sqlite3_io_methods {
    // Shared memory and mapped pages are a database's alone.
    iVersion: 1,
    xRead: Some(read_log),
    xWrite: Some(write_log),
    xTruncate: Some(truncate_log),
    xSync: Some(sync_log),
    xFileSize: Some(size_of_log),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
    ..DATABASE
};

#[cfg(test)]
mod tests;
