//! The frame every message shares: `type` first, then `id` if there is one, then the message's own fields.

use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Framed<'a, T: Serialize> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(flatten)]
    body: &'a T,
}

/// The message as JSON text. `body` must serialize as a struct or map.
pub(crate) fn framed<T: Serialize>(kind: &str, id: Option<&RawValue>, body: &T) -> String {
    // Serializing owned strings, numbers and maps with string keys into memory has no way to fail.
    serde_json::to_string(&Framed { kind, id, body }).expect("wire types serialize")
}
