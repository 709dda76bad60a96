//! The scanner against serde_json: the same texts are JSON, and strings hold the same characters.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

fn accepts(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    scanner.value().is_ok() && scanner.end().is_ok()
}

/// Texts that are JSON or nearly so.
fn nearly_json() -> impl Strategy<Value = String> {
    let token = proptest::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"\\n\"",
        "\"\\u00e9\"",
        "\"\\ud800\"",
        "\\",
        "\\u12",
        "null",
        "true",
        "false",
        "nul",
        "0",
        "-0",
        "-",
        "1",
        "12",
        "01",
        "1.5",
        "1.",
        ".5",
        "1e5",
        "1E+5",
        "1e",
        "1e-",
        " ",
        "\n",
        "\t",
        "\u{c}",
        "\u{a0}",
        "é",
        "\u{1}",
        "\u{7f}",
        "\u{feff}",
        "\0",
    ]);
    proptest::collection::vec(token, 0..10).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn the_same_texts_are_json(text in nearly_json()) {
        prop_assert_eq!(accepts(&text), serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{:?}", text);
    }

    #[test]
    fn strings_hold_the_same_characters(text in "(\\PC|[\\x00-\\x7f]|\u{10ffff}){0,40}") {
        let json = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(Scanner::new(&json).value().unwrap().as_string().unwrap(), text.as_str());
        let units: Vec<String> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let json = format!("\"{}\"", units.concat());
        prop_assert_eq!(Scanner::new(&json).value().unwrap().as_string().unwrap(), text.as_str());
    }

    #[test]
    fn plain_runs_end_at_the_first_special_byte(bytes in any::<Vec<u8>>(), filler in 0..40_usize) {
        let mut bytes = bytes;
        bytes.splice(0..0, std::iter::repeat_n(0xff, filler));
        let expected = bytes.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\').unwrap_or(bytes.len());
        prop_assert_eq!(plain_run(&bytes), expected);
    }

    #[test]
    fn numbers_have_the_value_serde_gives_them(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
        let json = serde_json::to_string(&number).unwrap();
        prop_assert_eq!(Raw(&json).as_number(), Some(number));
    }
}

#[test]
fn whole_numbers_are_whole_and_in_range() {
    let cases = [
        ("0", Some(0)),
        ("-0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("1e3", Some(1000)),
        ("1000.0", Some(1000)),
        ("18446744073709551616", None),
        ("1e400", None),
        ("-1", None),
        ("0.5", None),
        ("\"1\"", None),
        ("null", None),
    ];
    for (text, expected) in cases {
        assert_eq!(Raw(text).as_whole(), expected, "{text}");
    }
}
