//! `hookbridge check`: reads settings and subscribers as `run` would, and prints every mistake at
//! once. It connects to nothing.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use super::ConfigArgs;
use crate::{
    settings::{self, Mistake, Place},
    subscriber::loading::{self, Rules},
};

/// Reads settings and subscribers, and prints every mistake with its place.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// Prints to `out` every mistake and warning as `file:line: what. Remedy`, and a summary line.
/// `environment` is where both the settings' and the subscribers' variables are looked up.
///
/// Returns whether there is any mistake: the command then exits with 1. Warnings alone are none.
pub fn run(
    args: &CheckArgs,
    environment: impl Iterator<Item = (String, String)>,
    out: &mut impl Write,
) -> io::Result<bool> {
    let environment: Vec<(String, String)> = environment.collect();
    let found = settings::inspect(&args.config.config, environment.iter().cloned());
    let mut mistakes: Vec<Mistake> = found.mistakes.into_iter().collect();
    let Some(settings) = found.settings else {
        print(&mistakes, out)?;
        writeln!(out, "{}; the subscribers were not read", total(&mistakes))?;
        return Ok(true);
    };
    let variable = |name: &str| {
        let mut pairs = environment.iter();
        Some(pairs.find(|(other, _)| other == name)?.1.clone())
    };
    let directory = &settings.subscribers.directory;
    let read = loading::inspect_directory(directory, &Rules::from(&settings), &variable);
    mistakes.extend(read.mistakes);
    print(&mistakes, out)?;
    let warnings: Vec<&Mistake> = found.warnings.iter().chain(&read.warnings).collect();
    for Mistake {
        place,
        what,
        remedy,
    } in &warnings
    {
        writeln!(out, "{place}: warning: {what}. {remedy}")?;
    }
    let warnings = match warnings.len() {
        0 => String::new(),
        count => format!(", {}", counted(count, "warning")),
    };
    if mistakes.is_empty() {
        let (enabled, disabled) = read.set.counts();
        let subscribers = counted(enabled + disabled, "subscriber");
        writeln!(out, "ok: {subscribers} ({enabled} enabled){warnings}")?;
    } else {
        writeln!(out, "{}{warnings}", total(&mistakes))?;
    }
    Ok(!mistakes.is_empty())
}

fn print(mistakes: &[Mistake], out: &mut impl Write) -> io::Result<()> {
    mistakes
        .iter()
        .try_for_each(|mistake| writeln!(out, "{mistake}"))
}

/// `3 mistakes in 2 files and the environment`
fn total(mistakes: &[Mistake]) -> String {
    let files: BTreeSet<_> = mistakes
        .iter()
        .filter_map(|mistake| match &mistake.place {
            Place::File { path, .. } => Some(path),
            Place::Variable(_) | Place::Request(_) => None,
        })
        .collect();
    let in_environment = mistakes
        .iter()
        .any(|mistake| matches!(mistake.place, Place::Variable(_)));
    let places = match (files.len(), in_environment) {
        (0, _) => "the environment".to_owned(),
        (files, false) => counted(files, "file"),
        (files, true) => format!("{} and the environment", counted(files, "file")),
    };
    format!("{} in {places}", counted(mistakes.len(), "mistake"))
}

fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

#[cfg(test)]
mod tests;
