//! What the released program is made of, as SPDX 2.3 in its text form: every package that cargo resolved for it on
//! Linux, with version, licence and hash.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

const PROGRAM: &str = "mhnos-runtime";

/// The program's version.
pub(super) fn version(root: &Path) -> Result<String> {
    let metadata = metadata(root)?;
    let program = metadata.packages.iter().find(|package| *package.name == PROGRAM);
    Ok(program.context("the program's package")?.version.to_string())
}

/// The document. `epoch` is the time it is dated, in seconds.
pub(super) fn document(root: &Path, epoch: &str) -> Result<String> {
    let metadata = metadata(root)?;
    let hashes = hashes(&fs::read_to_string(root.join("Cargo.lock")).context("Cargo.lock")?);
    let program = metadata.packages.iter().find(|package| *package.name == PROGRAM);
    let program = program.context("the program's package")?;
    let mut text = format!(
        "SPDXVersion: SPDX-2.3\nDataLicense: CC0-1.0\nSPDXID: SPDXRef-DOCUMENT\nDocumentName: {PROGRAM}-{}\n\
         DocumentNamespace: urn:mhnos-runtime:sbom:{}:{epoch}\nCreator: Tool: cargo-xtask-dist\nCreated: {}\n",
        program.version,
        program.version,
        date(epoch.parse().context("SOURCE_DATE_EPOCH")?),
    );
    let _ = writeln!(
        text,
        "Relationship: SPDXRef-DOCUMENT DESCRIBES {}",
        reference(&program.name, &program.version.to_string())
    );
    for id in shipped(&metadata, &program.id) {
        let package = &metadata[id];
        let (name, version) = (package.name.as_str(), package.version.to_string());
        let licence =
            package.license.clone().unwrap_or_else(|| "NOASSERTION".to_owned()).replace('/', " OR ");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\nPackageName: {name}\nSPDXID: {}\nPackageVersion: {version}\nPackageDownloadLocation: NOASSERTION\n\
             FilesAnalyzed: false\nPackageLicenseConcluded: {licence}\nPackageLicenseDeclared: {licence}\n\
             PackageCopyrightText: NOASSERTION\nExternalRef: PACKAGE-MANAGER purl pkg:cargo/{name}@{version}\n",
            reference(name, &version),
        );
        if let Some(hash) = hashes.get(&(name.to_owned(), version)) {
            let _ = writeln!(text, "PackageChecksum: SHA256: {hash}");
        }
    }
    Ok(text)
}

fn metadata(root: &Path) -> Result<Metadata> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(["--locked".to_owned(), "--filter-platform".to_owned(), platform])
        .exec()
        .context("cargo metadata")
}

/// What is linked into the program: no build scripts, no tests.
fn shipped<'a>(metadata: &'a Metadata, program: &'a PackageId) -> BTreeSet<&'a PackageId> {
    let nodes = metadata.resolve.as_ref().map(|resolve| resolve.nodes.as_slice()).unwrap_or_default();
    let mut found = BTreeSet::new();
    let mut pending = vec![program];
    while let Some(id) = pending.pop() {
        if !found.insert(id) {
            continue;
        }
        let node = nodes.iter().find(|node| node.id == *id);
        let linked = node
            .into_iter()
            .flat_map(|node| &node.deps)
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        pending.extend(linked.map(|dependency| &dependency.pkg));
    }
    found
}

/// By name and version, from the lock file.
fn hashes(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |line: &str, key: &str| {
        Some(line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned())
    };
    let packages = lock.split("[[package]]").filter_map(|block| {
        let find = |key| block.lines().find_map(|line| value(line, key));
        Some(((find("name")?, find("version")?), find("checksum")?))
    });
    packages.collect()
}

fn reference(name: &str, version: &str) -> String {
    let text: String = format!("{name}-{version}")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    format!("SPDXRef-{text}")
}

/// RFC 3339, by the civil calendar's arithmetic in days since 0000-03-01.
fn date(epoch: i64) -> String {
    let (days, second) = (epoch.div_euclid(86_400) + 719_468, epoch.rem_euclid(86_400));
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::{date, hashes};

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(date(1_798_761_599), "2026-12-31T23:59:59Z");
    }

    #[test]
    fn hashes_are_read_from_a_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0\"\nchecksum = \"ff\"\n\n[[package]]\nname = \"ours\"\nversion = \"0.1\"\n";
        let found = hashes(lock);
        assert_eq!(found.len(), 1);
        assert_eq!(found[&("a".to_owned(), "1.0".to_owned())], "ff");
    }
}
