//! Who may depend on whom, and on what from outside, compared with what cargo resolved.
//!
//! Direct dependencies only, and those of the shipped code: a test may use anything of ours. The licence and duplicate checks
//! look at every package in the lock file that a Linux build uses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use super::Finding;

/// The arrows of ARCHITECTURE.md: a crate and the crates of ours it may use.
const EDGES: &[(&str, &[&str])] = &[
    ("mhnos-runtime", &["mhnos-server", "mhnos-client", "mhnos-keeper", "mhnos-sandbox", "mhnos-protocol"]),
    (
        "mhnos-server",
        &[
            "mhnos-protocol",
            "mhnos-network",
            "mhnos-process",
            "mhnos-runtimes",
            "mhnos-workspace",
            "mhnos-keeper",
            "mhnos-sandbox",
        ],
    ),
    ("mhnos-process", &["mhnos-keeper", "mhnos-sandbox"]),
    ("mhnos-keeper", &["mhnos-sandbox"]),
    ("mhnos-runtimes", &["mhnos-sandbox"]),
    ("mhnos-client", &["mhnos-protocol"]),
    ("mhnos-protocol", &[]),
    ("mhnos-sandbox", &[]),
    ("mhnos-workspace", &[]),
    ("mhnos-network", &[]),
    ("mhnos-testing", &["mhnos-client", "mhnos-protocol", "mhnos-sandbox"]),
    ("xtask", &[]),
];

/// Packages from outside that only some of ours may use, and why.
const CONFINED: &[(&str, &[&str], &str)] = &[
    (
        "serde_json",
        &["mhnos-protocol", "mhnos-server", "mhnos-client", "mhnos-testing"],
        "JSON stays at the edge",
    ),
    ("tokio-tungstenite", &["mhnos-server", "mhnos-client", "mhnos-testing"], "WebSocket stays at the edge"),
    ("hyper", &["mhnos-server", "mhnos-network"], "HTTP stays at the edges"),
    (
        "libc",
        &["mhnos-sandbox", "mhnos-keeper", "mhnos-testing", "mhnos-runtime"],
        "raw system calls have one place; the others, and the tests of the service, use its constants only",
    ),
    (
        "tokio",
        &["mhnos-network", "mhnos-process", "mhnos-server", "mhnos-client", "mhnos-runtime", "mhnos-testing"],
        "keeper, init and the pure crates have no runtime",
    ),
    ("anyhow", &["mhnos-runtime", "mhnos-testing", "xtask"], "a library's errors are typed"),
];

/// Licences that ask nothing beyond attribution.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that must not come in, not even through another.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "a C library that every build machine would need"),
    ("native-tls", "the same"),
    ("reqwest", "the service opens no HTTP connection by itself"),
    ("chrono", "std::time is enough"),
    ("async-std", "one runtime is enough"),
];

/// Packages that may be there in two versions, with the reason; a third version is always too many.
const DUPLICATES: &[(&str, &str)] = &[
    ("embedded-io", "postcard names two versions of it; traits only, no code of either is used"),
    ("getrandom", "ring and the others name different ones; a system call each"),
    ("syn", "derive macros are between two major versions of it; not in the binary"),
];

pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"].map(str::to_owned))
        .exec()
        .context("cargo metadata")?;
    let mut findings = Vec::new();
    for package in metadata.workspace_packages() {
        edges(root, package, &mut findings);
    }
    let lock = Path::new("Cargo.lock");
    let outside: Vec<&Package> =
        resolved(&metadata).into_iter().filter(|package| package.source.is_some()).collect();
    for package in &outside {
        if !acceptable(package.license.as_deref().unwrap_or_default()) {
            let licence = package.license.as_deref().unwrap_or("no licence");
            findings.push(Finding::new("licences", lock, 0, format!("{} has {licence}", package.name)));
        }
    }
    findings.extend(banned(&outside).into_iter().map(|what| Finding::new("banned", lock, 0, what)));
    Ok(findings)
}

fn edges(root: &Path, package: &Package, findings: &mut Vec<Finding>) {
    let manifest = package.manifest_path.as_std_path();
    let manifest = manifest.strip_prefix(root).unwrap_or(manifest);
    let name = package.name.as_str();
    let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
        findings.push(Finding::new(
            "edges",
            manifest,
            0,
            format!("{name} has no entry in the table of edges"),
        ));
        return;
    };
    for dependency in
        package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development)
    {
        let target = dependency.name.as_str();
        let ours = EDGES.iter().any(|(known, _)| *known == target);
        if ours && !allowed.contains(&target) {
            findings.push(Finding::new("edges", manifest, 0, format!("{name} must not depend on {target}")));
        }
        if let Some((_, may, why)) = CONFINED.iter().find(|(known, ..)| *known == target)
            && !may.contains(&name)
        {
            findings.push(Finding::new(
                "confined",
                manifest,
                0,
                format!("{name} must not depend on {target}: {why}"),
            ));
        }
    }
}

/// The packages that a build resolves to; `metadata.packages` has those of other platforms too.
fn resolved(metadata: &Metadata) -> Vec<&Package> {
    let nodes = metadata.resolve.as_ref().map(|resolve| resolve.nodes.as_slice()).unwrap_or_default();
    nodes.iter().map(|node| &metadata[&node.id]).collect()
}

/// One alternative of `A OR B` is enough, every part of `A AND B` is needed. Brackets occur as `(A OR B) AND C` only.
fn acceptable(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let known = |licence: &str| LICENCES.contains(&licence.trim().trim_matches(['(', ')']).trim());
    if expression.contains('(') {
        return expression.split(" AND ").all(|part| part.split(" OR ").any(known));
    }
    expression.split(" OR ").any(|part| part.split(" AND ").all(known))
}

fn banned(packages: &[&Package]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in packages {
        versions.entry(package.name.as_str()).or_default().insert(package.version.to_string());
    }
    let mut found = Vec::new();
    for (name, why) in BANNED {
        if versions.contains_key(name) {
            found.push(format!("{name} is banned: {why} (cargo tree --invert {name})"));
        }
    }
    for (name, all) in versions {
        let most = if DUPLICATES.iter().any(|(known, _)| *known == name) { 2 } else { 1 };
        if all.len() > most {
            let all: Vec<_> = all.into_iter().collect();
            found.push(format!(
                "{name} is there {} times: {} (cargo tree --duplicates)",
                all.len(),
                all.join(", ")
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::acceptable;

    #[test]
    fn one_permissive_alternative_is_enough_and_every_conjunct_is_needed() {
        assert!(acceptable("MIT OR Apache-2.0"));
        assert!(acceptable("MIT/Apache-2.0"));
        assert!(acceptable("GPL-3.0 OR MIT"));
        assert!(acceptable("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!acceptable("MIT AND GPL-3.0"));
        assert!(!acceptable("(MIT OR Apache-2.0) AND MPL-2.0"));
        assert!(!acceptable(""));
    }
}
