//! The cases that a subscriber names. Pure.

use serde::{Deserialize, Serialize};

/// Ids of cases, in order and each once. Most subscribers are the hook of one case, and there may be
/// 100,000 of them: this takes no more room than the ids, where a tree takes ten times that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>")]
pub struct Cases(Box<[Box<str>]>);

impl Cases {
    /// Whether a case is among them.
    pub fn contains(&self, case: &str) -> bool {
        self.0.binary_search_by(|one| (**one).cmp(case)).is_ok()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|case| &**case)
    }
}

impl FromIterator<String> for Cases {
    fn from_iter<I: IntoIterator<Item = String>>(cases: I) -> Self {
        let mut cases: Vec<Box<str>> = cases.into_iter().map(String::into_boxed_str).collect();
        cases.sort_unstable();
        cases.dedup();
        Self(cases.into_boxed_slice())
    }
}

impl From<Vec<String>> for Cases {
    fn from(cases: Vec<String>) -> Self {
        cases.into_iter().collect()
    }
}

impl<const N: usize> From<[String; N]> for Cases {
    fn from(cases: [String; N]) -> Self {
        cases.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_in_order_and_each_is_there_once() {
        let cases: Cases = ["c", "a", "b", "a"]
            .map(str::to_owned)
            .into_iter()
            .collect();
        assert_eq!(cases.iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(cases.contains("b") && !cases.contains("d") && !cases.contains(""));
        let written = serde_json::to_string(&cases).unwrap();
        assert_eq!(written, r#"["a","b","c"]"#);
        let read: Cases = serde_json::from_str(r#"["b","c","a","a"]"#).unwrap();
        assert_eq!(read, cases);
    }
}
