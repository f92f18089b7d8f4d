//! `/metrics`: the node's status, number by number, in Prometheus' text format 0.0.4.
//!
//! There is one truth, the JSON of `/status`; this module renders its numbers, so the two can
//! never disagree. The rules: a number `a.b` becomes `skerry_a_b`; a name that ends in `_total`
//! is a counter, every other a gauge; true and false are 1 and 0; a list's entries are told
//! apart by a label, the first of [`LABELS`] that they carry, and the list's name loses its
//! plural `s`; an object under a `_total` counts by `reason`; a `state` becomes a label of a
//! gauge that is 1.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Fields that tell the entries of a list apart, in order of preference.
const LABELS: [&str; 5] = ["name", "stream", "asset", "part", "reason"];

/// Renders every number of `status`.
pub fn render(status: &Value) -> String {
    let mut samples = Samples::default();
    samples.walk("skerry", &[], status);
    samples.into_text()
}

#[derive(Default)]
struct Samples(BTreeMap<String, Vec<(String, String)>>);

impl Samples {
    fn walk(&mut self, name: &str, labels: &[(String, String)], value: &Value) {
        match value {
            Value::Number(number) => self.add(name, labels, number.to_string()),
            Value::Bool(flag) => self.add(name, labels, u8::from(*flag).to_string()),
            Value::Object(fields) if name.ends_with("_total") => {
                for (reason, count) in fields {
                    let reason = ("reason".to_owned(), reason.clone());
                    self.walk(name, &[labels, &[reason]].concat(), count);
                }
            }
            Value::Object(fields) => {
                for (field, inner) in fields {
                    match inner.as_str() {
                        Some(state) if field == "state" => {
                            let state = ("state".to_owned(), state.to_owned());
                            let labels = [labels, &[state]].concat();
                            self.add(&format!("{name}_state"), &labels, "1".to_owned());
                        }
                        _ => self.walk(&format!("{name}_{}", sanitised(field)), labels, inner),
                    }
                }
            }
            Value::Array(entries) => {
                let name = name.strip_suffix('s').unwrap_or(name);
                for entry in entries {
                    if let Value::Object(fields) = entry
                        && let Some(label) = label_of(fields)
                    {
                        let labels = [labels, &[label]].concat();
                        self.walk(name, &labels, entry);
                    }
                }
            }
            Value::String(_) | Value::Null => {}
        }
    }

    fn add(&mut self, name: &str, labels: &[(String, String)], value: String) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, text)| format!("{label}=\"{}\"", escaped(text)))
            .collect();
        let series = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let samples = self.0.entry(name.to_owned()).or_default();
        samples.push((series, value));
    }

    fn into_text(self) -> String {
        let mut text = String::new();
        for (name, samples) in self.0 {
            let kind = if name.ends_with("_total") {
                "counter"
            } else {
                "gauge"
            };
            writeln!(text, "# TYPE {name} {kind}").expect("writing to a String cannot fail");
            for (series, value) in samples {
                writeln!(text, "{name}{series} {value}").expect("writing to a String cannot fail");
            }
        }
        text
    }
}

fn label_of(fields: &Map<String, Value>) -> Option<(String, String)> {
    LABELS.iter().find_map(|label| {
        let text = fields.get(*label)?.as_str()?;
        Some(((*label).to_owned(), text.to_owned()))
    })
}

fn sanitised(field: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    field.chars().map(plain).collect()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_lists_and_states_become_samples() {
        let status = json!({
            "store": {
                "commits_total": 3,
                "streams": [{"stream": "a\"b", "head": 7}, {"stream": "c", "head": 8}],
            },
            "mqtt": {"refused_total": {"quota": 2, "acl": 1}},
            "uplink": {"state": "up", "reachable": true, "why": null},
        });
        assert_eq!(
            render(&status),
            "# TYPE skerry_mqtt_refused_total counter\n\
             skerry_mqtt_refused_total{reason=\"acl\"} 1\n\
             skerry_mqtt_refused_total{reason=\"quota\"} 2\n\
             # TYPE skerry_store_commits_total counter\n\
             skerry_store_commits_total 3\n\
             # TYPE skerry_store_stream_head gauge\n\
             skerry_store_stream_head{stream=\"a\\\"b\"} 7\n\
             skerry_store_stream_head{stream=\"c\"} 8\n\
             # TYPE skerry_uplink_reachable gauge\n\
             skerry_uplink_reachable 1\n\
             # TYPE skerry_uplink_state gauge\n\
             skerry_uplink_state{state=\"up\"} 1\n"
        );
    }
}
