//! `doctor`: tries every tier as the service would and says, layer by layer, what this host gives, and what
//! to change for the rest. It works in a directory of its own, or, as a root that could not give that away, in a
//! workspace that belongs to an ordinary user.

use std::{
    fmt::Write,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::ArgMatches;
use mhnos_keeper::choose::{Missing, examine};
use mhnos_protocol::doctor::{Doctor, Finding};
use mhnos_sandbox::{Enforcement, Layer, Limits, Mode, Tier, enforcement, remedy};
use mhnos_server::{config::Config, door::explain};

use crate::{
    cli,
    serve::{descriptors, place},
};

/// Everything this version can enforce is in force.
const ALL_WELL: u8 = 0;
/// A service would start, with less than there could be.
const DEGRADED: u8 = 1;
/// A service would refuse to start, or the examination failed.
const REFUSED: u8 = 2;

/// Exit status by severity: 0 all is in force, 1 something is missing, 2 a service would not start.
pub(crate) fn run(arguments: &ArgMatches) -> ExitCode {
    let config = match Config::parse(std::env::vars_os(), &cli::flags(arguments)) {
        Ok((config, _)) => config,
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("{mistake}");
            }
            return ExitCode::from(REFUSED);
        }
    };
    if let Some(origin) = arguments.get_one::<String>("origin") {
        return about_origin(&config, origin);
    }
    match report(config) {
        Ok(report) => {
            let text = if arguments.get_flag("json") { report.to_json() + "\n" } else { table(&report) };
            print!("{text}");
            ExitCode::from(severity(&report))
        }
        Err(error) => {
            eprintln!("mhnos-runtime: {error:#}");
            ExitCode::from(REFUSED)
        }
    }
}

/// Exit status 0: pages get through; 1: some browser stands in the way; 2: the service refuses them.
fn about_origin(config: &Config, origin: &str) -> ExitCode {
    let remarks = explain(config, origin);
    for remark in &remarks {
        println!("{remark}");
    }
    let refused = remarks.iter().any(|remark| !remark.ok && remark.about == "service");
    let hindered = remarks.iter().any(|remark| !remark.ok);
    ExitCode::from(if refused {
        REFUSED
    } else if hindered {
        DEGRADED
    } else {
        ALL_WELL
    })
}

fn report(mut config: Config) -> anyhow::Result<Doctor> {
    let _scratch = if is_given(&config.workspace) {
        None
    } else {
        let scratch = Scratch::new()?;
        config.workspace.clone_from(&scratch.0);
        Some(scratch)
    };
    let place = place::take(&config, 0, None)?;
    let limits =
        Limits { memory: config.max_memory, pids: config.max_pids, cpu_millis: config.max_cpu_millis };
    let found = examine(&place.policy, place.cgroups.as_ref(), limits, place.reserve);
    let usable = |(tier, missing): &(Tier, Option<Missing>)| {
        (missing.is_none() && *tier >= config.sandbox_min_tier).then_some(*tier)
    };
    let tier = found.iter().find_map(usable);
    let grouped = place.cgroups.is_some();
    let in_force = tier.map(|tier| enforcement(&place.policy.at(tier, grouped), grouped));
    Ok(Doctor {
        mode: config.sandbox.as_str().to_owned(),
        tier: tier.map(|tier| tier.as_str().to_owned()),
        tiers: found.into_iter().map(|(tier, missing)| tier_finding(tier, missing)).collect(),
        layers: in_force.map(|in_force| layer_findings(&in_force)).unwrap_or_default(),
        limits: vec![descriptors::examine(&config)],
    })
}

/// A root without the power to give directories away (a container's) can only use one that is given already.
fn is_given(workspace: &Path) -> bool {
    let root = rustix::process::geteuid().is_root();
    root && fs::metadata(workspace).is_ok_and(|meta| meta.is_dir() && meta.uid() != 0)
}

fn tier_finding(tier: Tier, missing: Option<Missing>) -> Finding {
    Finding {
        name: tier.as_str().to_owned(),
        ok: missing.is_none(),
        reason: missing.as_ref().map(Missing::reason),
        remedy: missing.map(|missing| missing.remedy().to_owned()).filter(|text| !text.is_empty()),
    }
}

/// Layers that stand in for each other are told as one: a watchdog is no loss where there are control groups.
fn layer_findings(in_force: &Enforcement) -> Vec<Finding> {
    let namespaces = matches!(in_force.tier, Tier::T1 | Tier::T2);
    let wanted = Layer::ALL.into_iter().filter(|layer| match layer {
        Layer::MemoryWatchdog => in_force.layers.contains(layer),
        Layer::SeparateUid => !namespaces && in_force.mode != Mode::None,
        // The host's is what that mode means.
        Layer::NetNamespace => in_force.mode != Mode::Relaxed,
        Layer::NetProxy => !namespaces && in_force.mode == Mode::Strict,
        _ => true,
    });
    wanted
        .map(|layer| {
            let ok = in_force.layers.contains(&layer);
            let remedy = (!ok).then(|| remedy::of_layer(layer, in_force.mode)).flatten();
            Finding { name: layer.as_str().to_owned(), ok, reason: None, remedy: remedy.map(str::to_owned) }
        })
        .collect()
}

fn severity(report: &Doctor) -> u8 {
    let best = report.tiers.first().is_some_and(|tier| tier.ok);
    match (&report.tier, best && report.layers.iter().all(|layer| layer.ok)) {
        (None, _) => REFUSED,
        (Some(_), true) => ALL_WELL,
        (Some(_), false) => DEGRADED,
    }
}

fn table(report: &Doctor) -> String {
    let mut text = String::new();
    let outcome = report.tier.as_deref().map_or("a service would refuse to start".to_owned(), |tier| {
        format!("a service would start in tier {tier}")
    });
    // Writing to a string cannot fail.
    let _ = writeln!(text, "mode {}: {outcome}\n", report.mode);
    for (kind, findings) in [("tier", &report.tiers), ("layer", &report.layers), ("limit", &report.limits)] {
        for finding in findings {
            let mark = if finding.ok { "yes" } else { "NO" };
            let _ = writeln!(text, "{kind:<6}{:<19}{mark}", finding.name);
            for (label, line) in [("why", &finding.reason), ("to get it", &finding.remedy)] {
                if let Some(line) = line {
                    let _ = writeln!(text, "      {label}: {line}");
                }
            }
        }
        text.push('\n');
    }
    let has = |wanted: Layer| report.layers.iter().any(|layer| layer.ok && layer.name == wanted.as_str());
    text.push_str(if has(Layer::NetNamespace) {
        "network: programs have their own; MHNOS_EGRESS says what they reach outside\n"
    } else if has(Layer::NetProxy) {
        "network: programs share the host's, without UDP and with some TCP ports only; a proxy lets them reach what \
         MHNOS_EGRESS says\n"
    } else {
        "network: programs share the host's\n"
    });
    text
}

/// A directory that is gone when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("mhnos-doctor-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is empty, and left to the system's own cleaning if it cannot be removed.
        let _ = fs::remove_dir(&self.0);
    }
}
