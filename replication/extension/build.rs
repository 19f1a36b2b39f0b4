//! Finds the compiled cr-sqlite extension among the published files of `klukai-types`, checks it against the
//! hash that was reviewed, and copies it into the build's output, from where `lib.rs` embeds it.

use std::{env, error::Error, fs, path::Path, path::PathBuf, process::Command};

/// File in the published crate and its SHA-256, by target operating system and architecture.
const BUILDS: [(&str, &str, &str, &str); 4] = [
    (
        "linux",
        "x86_64",
        "crsqlite-linux-x86_64.so",
        "06e14e294c05db8c2488d6afc6c0f04010a39c01d9511abb3b5a3650bd952545",
    ),
    (
        "linux",
        "aarch64",
        "crsqlite-linux-aarch64.so",
        "edb6b16eec78698f82e910cd096cf94f768ee13ab2839968f68f37552e998aff",
    ),
    (
        "macos",
        "x86_64",
        "crsqlite-darwin-x86_64.dylib",
        "9c5af27eb4ac2fef1b284bdb89639c13bf38733243821b7550b83a9799861a59",
    ),
    (
        "macos",
        "aarch64",
        "crsqlite-darwin-aarch64.dylib",
        "53269e1cf6a8b555356c9843b59d6ffb6ee82330753426da2396ea2aa823c7bf",
    ),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=source/Cargo.toml");
    println!("cargo::rerun-if-changed=source/Cargo.lock");

    let os = env::var("CARGO_CFG_TARGET_OS")?;
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let (_, _, file, expected) =
        BUILDS.iter().find(|(o, a, _, _)| *o == os && *a == arch).ok_or_else(|| {
            format!(
                "cr-sqlite is published for Linux and macOS on x86-64 and aarch64, not for {os} on {arch}"
            )
        })?;

    let library = published_crate()?.join(file);
    let bytes = fs::read(&library).map_err(|e| format!("cannot read {}: {e}", library.display()))?;
    let found: String = ring::digest::digest(&ring::digest::SHA256, &bytes)
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    if found != *expected {
        return Err(format!("{file} has SHA-256 {found}, but {expected} was reviewed").into());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?).join("crsqlite.library");
    fs::write(out, bytes)?;
    Ok(())
}

/// The folder in which cargo keeps the sources of `klukai-types`; fetched at the first build only.
fn published_crate() -> Result<PathBuf, Box<dyn Error>> {
    let manifest = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("source/Cargo.toml");
    let metadata = |extra: &[&str]| {
        Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
            .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
            .arg(&manifest)
            .args(extra)
            .output()
    };
    // Offline first: a build after the first must not need the network.
    let mut answer = metadata(&["--offline"])?;
    if !answer.status.success() {
        answer = metadata(&[])?;
    }
    if !answer.status.success() {
        return Err(format!(
            "cargo could not fetch the crate that carries cr-sqlite:\n{}",
            String::from_utf8_lossy(&answer.stderr)
        )
        .into());
    }
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout)?;
    let manifest = answer["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "klukai-types")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("cargo metadata does not name klukai-types")?;
    Ok(Path::new(manifest).parent().ok_or("a manifest has a folder")?.to_path_buf())
}
