//! How single values are read. Each function takes the text of one setting and gives `None` for what the
//! setting does not accept; the table knows what to tell the operator then.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use mhnos_network::Upstream;
use mhnos_sandbox::{Mode, Tier};

use super::{AuditLog, GivenToken, LogFormat, LogLevel, NO_QUOTA, SecretText, secret::SEALED};
use crate::door::{OriginPattern, split_authority};

/// What `MHNOS_HOST=localhost` stands for.
pub(super) const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// A whole number in plain digits.
pub(super) fn number<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

pub(super) fn at_least_one(text: &str) -> Option<usize> {
    number(text).filter(|count| *count >= 1)
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A host name without a port, in lower case.
pub(super) fn domain(text: &str) -> Option<String> {
    let (host, port) = split_authority(text)?;
    (port.is_none() && host.parse::<IpAddr>().is_err() && !host.ends_with('.')).then_some(host)
}

pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
}

/// `none`, `stdout`, or an absolute path with a file name.
pub(super) fn audit_log(text: &str) -> Option<AuditLog> {
    match text {
        "none" => Some(AuditLog::Off),
        "stdout" => Some(AuditLog::Stdout),
        _ => path(text)
            .filter(|path| path.is_absolute() && path.file_name().is_some() && !text.ends_with('/'))
            .map(AuditLog::File),
    }
}

pub(super) fn show_audit_log(audit_log: &AuditLog) -> String {
    match audit_log {
        AuditLog::Off => "none".to_owned(),
        AuditLog::Stdout => "stdout".to_owned(),
        AuditLog::File(path) => path.to_string_lossy().into_owned(),
    }
}

/// A proxy, or none.
#[allow(clippy::option_option, reason = "no proxy is fine, a wrong one is not")]
pub(super) fn upstream_proxy(text: &str) -> Option<Option<Upstream>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}

/// A path, or none.
#[allow(clippy::option_option, reason = "no path is fine, an impossible one is not")]
pub(super) fn optional_path(text: &str) -> Option<Option<PathBuf>> {
    if text.is_empty() { Some(None) } else { path(text).map(Some) }
}

pub(super) fn show_path(path: Option<&Path>) -> String {
    path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A token, whose own form is checked where it is used, or the word that says where it has gone.
pub(super) fn token(text: &str) -> GivenToken {
    match text {
        "" => GivenToken::None,
        SEALED => GivenToken::Sealed,
        text => GivenToken::Here(SecretText::new(text)),
    }
}

/// A size, or [`NO_QUOTA`].
pub(super) fn quota(text: &str) -> Option<u64> {
    match text {
        "off" => Some(NO_QUOTA),
        text => size(text).filter(|size| *size >= 1 << 20),
    }
}

pub(super) fn show_quota(quota: u64) -> String {
    if quota == NO_QUOTA { "off".to_owned() } else { quota.to_string() }
}

/// Bytes a second; 0 is no bound.
pub(super) fn rate(text: &str) -> Option<u64> {
    match text {
        "off" => Some(0),
        text => size(text).filter(|size| (64 << 10..=1 << 40).contains(size)),
    }
}

pub(super) fn show_rate(rate: u64) -> String {
    if rate == 0 { "off".to_owned() } else { rate.to_string() }
}

/// Bytes: a number, perhaps with a fraction, and a unit of 1024 (`k`, `kb`, `kib`, … `t`), any case.
pub(super) fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, unit) = lower.split_at(lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len()));
    let shift = match unit {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    scaled(digits.trim_end(), 1 << shift)
}

/// A duration with a unit: `500ms`, `5s`, `2m`, `1h`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, unit) = lower.split_at(lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len()));
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    scaled(digits.trim_end(), millis).map(Duration::from_millis)
}

/// `digits[.digits] × scale`, rounded down, without passing through floating point.
fn scaled(digits: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = number(whole)?;
    let part: u64 = number(fraction)?;
    let of = 10u128.pow(fraction.len() as u32);
    let part = u128::from(part) * u128::from(scale) / of;
    whole.checked_mul(scale)?.checked_add(u64::try_from(part).ok()?)
}

/// Cores with an optional fraction, as thousandths.
pub(super) fn cores(text: &str) -> Option<u32> {
    let millis = scaled(text, 1000)?;
    u32::try_from(millis).ok().filter(|millis| *millis >= 10)
}

pub(super) fn show_cores(millis: u32) -> String {
    if millis.is_multiple_of(1000) {
        (millis / 1000).to_string()
    } else {
        format!("{}.{:03}", millis / 1000, millis % 1000)
    }
}

pub(super) fn mode(text: &str) -> Option<Mode> {
    [Mode::Strict, Mode::Relaxed, Mode::None]
        .into_iter()
        .find(|mode| mode.as_str().eq_ignore_ascii_case(text))
}

pub(super) fn tier(text: &str) -> Option<Tier> {
    [Tier::None, Tier::T3, Tier::T3Plus, Tier::T2, Tier::T1]
        .into_iter()
        .find(|tier| tier.as_str().eq_ignore_ascii_case(text))
}

pub(super) fn log_level(text: &str) -> Option<LogLevel> {
    [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error]
        .into_iter()
        .find(|level| level.as_str().eq_ignore_ascii_case(text))
}

pub(super) fn log_format(text: &str) -> Option<LogFormat> {
    [LogFormat::ByTerminal, LogFormat::Text, LogFormat::Json]
        .into_iter()
        .find(|format| format.as_str().eq_ignore_ascii_case(text))
}

/// Addresses to listen on, without repetition, in the order given.
pub(super) fn addresses(text: &str) -> Option<Vec<IpAddr>> {
    let mut found = Vec::new();
    for item in text.split(',').map(str::trim) {
        let meant = if item.eq_ignore_ascii_case("localhost") {
            LOOPBACK.to_vec()
        } else {
            let bare = item.strip_prefix('[').and_then(|item| item.strip_suffix(']')).unwrap_or(item);
            vec![bare.parse().ok()?]
        };
        for address in meant {
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    Some(found)
}

/// Origins separated by commas; none at all is fine.
pub(super) fn origins(text: &str) -> Option<Vec<OriginPattern>> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(OriginPattern::parse).collect()
}

/// Colon-separated absolute directories.
pub(super) fn search_path(text: &str) -> Option<String> {
    let fine = text.split(':').all(|entry| entry.starts_with('/')) && !text.contains('\0');
    fine.then(|| text.to_owned())
}

/// File names separated by commas; `none` for none at all.
pub(super) fn names(text: &str) -> Option<Vec<String>> {
    if text.trim().eq_ignore_ascii_case("none") {
        return Some(Vec::new());
    }
    let plain = |name: &&str| !matches!(*name, "" | "." | "..") && !name.contains(['/', '\0']);
    let names = text.split(',').map(str::trim);
    names.map(|name| Some(name).filter(plain).map(str::to_owned)).collect()
}

pub(super) fn show_names(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}

pub(super) fn joined(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
