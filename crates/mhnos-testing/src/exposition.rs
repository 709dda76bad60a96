//! A strict reader of the Prometheus text format: what promtool would complain about is an error here.
//!
//! Stricter than the format where ours has no reason to be lax: families stand together, each with HELP and TYPE
//! first; counters end in `_total` and are whole; buckets are cumulative, ordered, and end with `+Inf`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::http::http_get;

/// A scrape, by series as written (`name{label="value"}`).
#[derive(Debug, Clone)]
pub struct Exposition {
    series: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

impl Exposition {
    /// Scrapes a service; panics where the answer is not what Prometheus reads.
    #[track_caller]
    pub fn of(address: SocketAddr) -> Self {
        let reply = http_get(address, "/metrics", &[]).expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::parse(&reply.body).unwrap_or_else(|error| panic!("{error}\n{}", reply.body))
    }

    /// Reads an exposition; says what is wrong and in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.ends_with('\n') {
            return Err("the last line does not end".to_owned());
        }
        let mut all = Self { series: BTreeMap::new(), kinds: BTreeMap::new() };
        let (mut help, mut family) = (None, None);
        for (number, line) in (1..).zip(text.lines()) {
            let wrong = |what: &str| format!("line {number}: {what}: {line:?}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, said) = rest.split_once(' ').ok_or_else(|| wrong("no help text"))?;
                if !is_name(name) || said.is_empty() {
                    return Err(wrong("no name or no help"));
                }
                help = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
                if help.take().as_deref() != Some(name) {
                    return Err(wrong("TYPE without its HELP"));
                }
                if !["counter", "gauge", "histogram"].contains(&kind) {
                    return Err(wrong("an unknown type"));
                }
                if (kind == "counter") != name.ends_with("_total") {
                    return Err(wrong("`_total` is for counters"));
                }
                if all.kinds.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return Err(wrong("a family twice"));
                }
                family = Some((name.to_owned(), kind.to_owned()));
            } else {
                let (name, kind) = family.as_ref().ok_or_else(|| wrong("a sample without a family"))?;
                all.sample(line, name, kind).map_err(|what| wrong(&what))?;
            }
        }
        all.check_histograms()?;
        Ok(all)
    }

    fn sample(&mut self, line: &str, family: &str, kind: &str) -> Result<(), String> {
        let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
        let (name, labels) = match series.split_once('{') {
            None => (series, ""),
            Some((name, rest)) => (name, rest.strip_suffix('}').ok_or("labels do not end")?),
        };
        let suffix = name.strip_prefix(family).ok_or("not of this family")?;
        let known: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        if !is_name(name) || !known.contains(&suffix) {
            return Err("not a name of this family".to_owned());
        }
        labels_are_well_formed(labels)?;
        let number: f64 = value.parse().map_err(|_| "not a number")?;
        let whole = kind == "counter" || suffix == "_bucket" || suffix == "_count";
        if whole && (number < 0.0 || number.fract() != 0.0) || !number.is_finite() {
            return Err("not a count".to_owned());
        }
        match self.series.insert(series.to_owned(), number) {
            Some(_) => Err("a series twice".to_owned()),
            None => Ok(()),
        }
    }

    fn check_histograms(&self) -> Result<(), String> {
        for (name, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            for (series, count) in &self.series {
                let Some(labels) = series.strip_prefix(&format!("{name}_bucket{{")) else { continue };
                let (others, bound) = labels.split_once("le=\"").ok_or("a bucket without `le`")?;
                let bound = bound.trim_end_matches("\"}");
                let bound =
                    if bound == "+Inf" { f64::INFINITY } else { bound.parse().map_err(|_| "`le`")? };
                let of = others.trim_end_matches(',').to_owned();
                buckets.entry(of).or_default().push((bound, *count));
            }
            for (of, mut buckets) in buckets {
                buckets.sort_by(|one, two| one.0.total_cmp(&two.0));
                let grows = buckets.is_sorted_by(|one, two| one.1 <= two.1);
                let last = buckets.last().filter(|(bound, _)| bound.is_infinite()).map(|(_, count)| *count);
                if !grows || last != self.series.get(&format!("{name}_count{{{of}}}")).copied() {
                    return Err(format!("{name}{{{of}}}: buckets do not add up: {buckets:?}"));
                }
            }
        }
        Ok(())
    }

    /// The value of a series, written as in the exposition.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        let known = || self.series.keys().cloned().collect::<Vec<_>>().join("\n");
        *self.series.get(series).unwrap_or_else(|| panic!("no series {series} among\n{}", known()))
    }

    /// The same for a series that counts: a whole number.
    #[track_caller]
    pub fn count(&self, series: &str) -> u64 {
        let value = self.value(series);
        assert!(value >= 0.0 && value.fract() == 0.0, "{series} is {value}");
        value as u64
    }

    /// Names of all families.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// Every series of counters whose value differs from that in `earlier`, with the difference.
    pub fn moved_since(&self, earlier: &Self) -> BTreeMap<String, i64> {
        let counter = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            self.kinds.get(name).is_some_and(|kind| kind == "counter")
        };
        let moved = self.series.iter().filter(|(series, _)| counter(series));
        let moved = moved.map(|(series, now)| (series, now - earlier.series.get(series).unwrap_or(&0.0)));
        moved.filter(|(_, by)| *by != 0.0).map(|(series, by)| (series.clone(), by as i64)).collect()
    }
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || "_:".contains(first))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
}

fn labels_are_well_formed(mut rest: &str) -> Result<(), String> {
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let (label, value) = rest.split_once("=\"").ok_or("a label without a value")?;
        if !is_name(label) || label.contains(':') || seen.contains(&label) {
            return Err(format!("the label {label:?}"));
        }
        seen.push(label);
        let mut escaped = false;
        let end = value.char_indices().find(|(_, c)| {
            let ends = !escaped && *c == '"';
            escaped = !escaped && *c == '\\';
            ends
        });
        let (end, _) = end.ok_or("a value that does not end")?;
        rest = &value[end + 1..];
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').filter(|more| !more.is_empty()).ok_or("no comma between labels")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Exposition;

    #[test]
    fn what_prometheus_would_not_read_is_refused() {
        let fine = "# HELP a_total x\n# TYPE a_total counter\na_total{b=\"c\",d=\"\\\"\"} 1\n";
        assert_eq!(Exposition::parse(fine).expect("fine").count("a_total{b=\"c\",d=\"\\\"\"}"), 1);
        let histogram = "# HELP h x\n# TYPE h histogram\n";
        let sound = format!(
            "{histogram}h_bucket{{le=\"1\"}} 1\nh_bucket{{le=\"+Inf\"}} 2\nh_sum{{}} 1\nh_count{{}} 2\n"
        );
        assert!(Exposition::parse(&sound).is_ok(), "{:?}", Exposition::parse(&sound));
        for wrong in [
            "a_total 1\n",
            "# TYPE a_total counter\na_total 1\n",
            "# HELP a x\n# TYPE a counter\na 1\n",
            "# HELP a_total x\n# TYPE a_total counter\na_total 1",
            "# HELP a_total x\n# TYPE a_total counter\na_total 1.5\n",
            "# HELP a_total x\n# TYPE a_total counter\na_total 1\na_total 2\n",
            "# HELP a_total x\n# TYPE a_total counter\nb_total 1\n",
            "# HELP a_total x\n# TYPE a_total counter\na_total{b=c} 1\n",
            "# HELP a_total x\n# TYPE a_total counter\na_total{b=\"c\",} 1\n",
            "# HELP a_total x\n# TYPE a_total counter\na_total{b=\"c\"d=\"e\"} 1\n",
            "# HELP a_total x\n# TYPE a_total counter\na_total{b=\"c} 1\n",
            &sound.replace("h_count{} 2", "h_count{} 3"),
            &sound.replace("\"1\"} 1", "\"1\"} 5"),
        ] {
            assert!(Exposition::parse(wrong).is_err(), "{wrong}");
        }
    }
}
