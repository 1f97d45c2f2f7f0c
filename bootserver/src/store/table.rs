//! The records' table: opening, checking, loading, and the one transaction that changes it.

use super::{Connection, StoreError, path, sqlite};
use rack::record::{Change, Key, Kind, Loaded, Record};
use rusqlite::{Transaction, params};
use sha2::{Digest, Sha256};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Version of the schema, in SQLite's `user_version`. 0 is an empty file.
const SCHEMA: i64 = 1;

pub(super) fn open(state: &Path) -> Result<(Connection, Vec<Loaded>), StoreError> {
    let file = path(state);
    // Made here and not by SQLite, so that nobody else can read it: it holds the seeds of CHAP secrets.
    OpenOptions::new().create(true).append(true).mode(0o600).open(&file).map_err(super::io("opening", &file))?;
    let broken = broken(&file);
    let connection = Connection::open(&file).map_err(sqlite("opening", &file))?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(&broken)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(&broken)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(&broken)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(&broken)?;
    if found == 0 {
        connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE;
                 CREATE TABLE record (
                     kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,
                     body TEXT NOT NULL, sum BLOB NOT NULL, PRIMARY KEY (kind, name)
                 ) STRICT, WITHOUT ROWID;
                 PRAGMA user_version = {SCHEMA};
                 COMMIT;"
            ))
            .map_err(&broken)?;
    }
    let records = check(&connection, &file)?;
    Ok((connection, records))
}

/// Checks a store that is opened, and loads its records.
pub(super) fn check(connection: &Connection, file: &Path) -> Result<Vec<Loaded>, StoreError> {
    let (damaged, broken) = (damaged(file), broken(file));
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(&broken)?;
    if found != SCHEMA {
        return Err(StoreError::TooNew { path: file.to_owned(), found, known: SCHEMA });
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(&broken)?;
    if verdict != "ok" {
        // It comes in several lines; the first alone names nothing.
        return Err(damaged(verdict.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    load(connection, &damaged, &broken)
}

fn damaged(file: &Path) -> impl Fn(String) -> StoreError {
    let path = file.to_owned();
    move |what| StoreError::Damaged { path: path.clone(), what }
}

fn broken(file: &Path) -> impl Fn(rusqlite::Error) -> StoreError {
    let path = file.to_owned();
    move |err| match err.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            StoreError::Damaged { path: path.clone(), what: err.to_string() }
        }
        _ => StoreError::Sqlite { doing: "reading", path: path.clone(), err },
    }
}

fn load(
    connection: &Connection,
    damaged: &dyn Fn(String) -> StoreError,
    broken: &dyn Fn(rusqlite::Error) -> StoreError,
) -> Result<Vec<Loaded>, StoreError> {
    let mut select = connection
        .prepare("SELECT name, version, body, sum FROM record WHERE kind = ?1 ORDER BY name")
        .map_err(broken)?;
    let mut records = Vec::new();
    for kind in Kind::ALL {
        let mut rows = select.query([kind.as_str()]).map_err(broken)?;
        while let Some(row) = rows.next().map_err(broken)? {
            let read = || Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            let (name, version, body, sum): (String, u64, String, Vec<u8>) = read().map_err(broken)?;
            if sum != checksum(kind, &name, version, &body) {
                return Err(damaged(format!("the checksum of record {}/{name} is wrong", kind.as_str())));
            }
            let record: Record = serde_json::from_str(&body).map_err(|err| {
                damaged(format!("record {}/{name} cannot be read by this server: {err}", kind.as_str()))
            })?;
            records.push(Loaded { key: Key { kind, name }, version, record });
        }
    }
    let known: i64 = i64::try_from(records.len()).unwrap_or(i64::MAX);
    let all: i64 = connection.query_row("SELECT count(*) FROM record", [], |row| row.get(0)).map_err(broken)?;
    if all != known {
        return Err(damaged(format!("{} records are of a kind that this server does not know", all - known)));
    }
    Ok(records)
}

pub(super) fn commit(connection: &mut Connection, file: &Path, changes: &[Change]) -> Result<(), StoreError> {
    let failed = |err| StoreError::Sqlite { doing: "writing", path: file.to_owned(), err };
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(&failed)?;
    for change in changes {
        if !apply(&transaction, change).map_err(&failed)? {
            return Err(StoreError::Conflict {
                path: file.to_owned(),
                kind: change.key.kind.as_str(),
                name: change.key.name.clone(),
                expected: change.expect,
            });
        }
    }
    transaction.commit().map_err(&failed)
}

/// Whether the record was at the version expected.
fn apply(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<bool> {
    let (kind, name) = (change.key.kind.as_str(), change.key.name.as_str());
    let Some(record) = &change.to else {
        let changed = transaction
            .prepare_cached("DELETE FROM record WHERE kind = ?1 AND name = ?2 AND version = ?3")?
            .execute(params![kind, name, change.expect])?;
        return Ok(changed == 1);
    };
    let version = change.expect + 1;
    let body = serde_json::to_string(record).map_err(|err| rusqlite::Error::ToSqlConversionFailure(err.into()))?;
    let sum = checksum(change.key.kind, name, version, &body);
    if change.expect == 0 {
        let inserted = transaction
            .prepare_cached(
                "INSERT INTO record (kind, name, version, body, sum) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            )?
            .execute(params![kind, name, version, body, sum])?;
        return Ok(inserted == 1);
    }
    let changed = transaction
        .prepare_cached(
            "UPDATE record SET version = ?3, body = ?4, sum = ?5 WHERE kind = ?1 AND name = ?2 AND version = ?6",
        )?
        .execute(params![kind, name, version, body, sum, change.expect])?;
    Ok(changed == 1)
}

/// 16 bytes of sha256 over the whole row: SQLite itself does not notice a byte changed within a text.
fn checksum(kind: Kind, name: &str, version: u64, body: &str) -> Vec<u8> {
    let mut hasher = Sha256::new();
    for part in [kind.as_str(), "\0", name, "\0", &version.to_string(), "\0", body] {
        hasher.update(part);
    }
    hasher.finalize()[..16].to_vec()
}
