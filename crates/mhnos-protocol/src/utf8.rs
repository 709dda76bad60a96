//! Where a text may be cut: the one rule that output frames, viewers and tests share.

/// How many bytes at the end of `bytes` (0..=3) begin a UTF-8 character that more bytes could complete.
///
/// Such a suffix is kept back until the rest arrives. A suffix that no byte can complete is not counted:
/// it is invalid already and becomes U+FFFD at once, as `String::from_utf8_lossy` has it.
pub fn incomplete_suffix(bytes: &[u8]) -> usize {
    let start = bytes.len().saturating_sub(3);
    // The last byte that is no continuation byte can only be the beginning of the last character.
    let Some(lead) = (start..bytes.len()).rev().find(|&index| bytes[index] & 0xC0 != 0x80) else { return 0 };
    match std::str::from_utf8(&bytes[lead..]) {
        Err(error) if error.error_len().is_none() => bytes.len() - lead - error.valid_up_to(),
        _ => 0,
    }
}
