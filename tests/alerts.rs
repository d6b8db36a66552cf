//! The alert rules: each is tried, each has its runbook, and what they ask for is there. The last is
//! in `dashboard.rs`, with a real Prometheus.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::prometheus::{installed, promtool, rules};

/// A file of the project as text.
pub fn project_file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The alerts and the links to their runbooks, in order.
fn alerts() -> Vec<(String, String)> {
    let text = project_file("deploy/prometheus/alerts.yml");
    let after = |word: &str| {
        let values = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix(word));
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let (names, links) = (after("- alert: "), after("runbook_url: "));
    assert_eq!(names.len(), links.len(), "every alert links to its runbook");
    assert!(names.len() > 15, "{names:?}");
    names.into_iter().zip(links).collect()
}

#[test]
fn every_alert_has_a_runbook_that_its_link_leads_to() {
    let runbooks = project_file("docs/runbooks.md");
    let headings: BTreeSet<_> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## Hookbridge"))
        .map(|rest| format!("Hookbridge{rest}"))
        .collect();
    let mut named = BTreeSet::new();
    for (alert, link) in alerts() {
        assert_eq!(link, format!("docs/runbooks.md#{}", alert.to_lowercase()));
        let (_, runbook) = runbooks
            .split_once(&format!("\n## {alert}\n"))
            .unwrap_or_else(|| panic!("docs/runbooks.md has no heading {alert}"));
        let runbook = runbook.split("\n## ").next().unwrap();
        for part in ["**Means.**", "**Look at.**", "**Do.**"] {
            assert!(runbook.contains(part), "{alert} has no {part}");
        }
        named.insert(alert);
    }
    assert_eq!(headings, named, "a runbook for each alert, and no other");
}

#[test]
fn the_prometheus_operator_gets_the_same_rules() {
    let rules = project_file("deploy/prometheus/alerts.yml");
    let (_, groups) = rules.split_once("\ngroups:\n").unwrap();
    let copy = project_file("deploy/kubernetes/components/monitoring/prometheusrule.yaml");
    let (_, copied) = copy.split_once("\nspec:\n  groups:\n").unwrap();
    let indented = |line: &str| match line {
        "" => String::new(),
        line => format!("  {line}"),
    };
    let expected: Vec<_> = groups.lines().map(indented).collect();
    let copied: Vec<_> = copied.lines().collect();
    assert_eq!(copied, expected, "copy the groups of alerts.yml into it");
}

#[test]
fn every_alert_fires_when_it_must_and_not_before() {
    if !installed("alerts") {
        return;
    }
    promtool(&["check", "rules", "alerts.yml"], None);
    promtool(&["check", "config", "prometheus.yml"], None);
    promtool(&["test", "rules", "alerts_test.yml"], None);
    let tried = fs::read_to_string(rules().join("alerts_test.yml")).unwrap();
    for (alert, _) in alerts() {
        let fires = tried.contains(&format!("{{alertname=\"{alert}\"}}"));
        assert!(fires, "alerts_test.yml never sees {alert} fire");
    }
}
