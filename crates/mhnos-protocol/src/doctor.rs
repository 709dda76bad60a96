//! `mhnos-runtime doctor --json`: what this host gives to a sandbox, and what would give the rest.

use serde::{Deserialize, Serialize};

/// The whole report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Doctor {
    /// `strict`, `relaxed` or `none`: what was asked for.
    pub mode: String,
    /// The tier a service would start in; absent if it would refuse to start.
    pub tier: Option<String>,
    /// Every tier of this mode, strongest first.
    pub tiers: Vec<Finding>,
    /// Every layer, in force in that tier or not.
    pub layers: Vec<Finding>,
    /// Limits the service itself is started with: whether they let it do all that its settings allow.
    #[serde(default)]
    pub limits: Vec<Finding>,
}

/// A tier, a layer or a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Its stable name.
    pub name: String,
    /// Whether it holds here.
    pub ok: bool,
    /// What failed, for one that does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What would give it, where something would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Doctor {
    /// One JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
