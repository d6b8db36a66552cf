//! What the command line asks for.

/// What to run, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Words of which a part's name must hold one; none means every part.
    pub(crate) filters: Vec<String>,
    /// A short run, to see that everything works: its figures mean nothing.
    pub(crate) quick: bool,
    /// Only list the parts.
    pub(crate) list: bool,
    /// Numbers for planning instead of comparisons.
    pub(crate) planning: bool,
    /// Look into the bridge instead of comparing it.
    pub(crate) profile: Option<Profile>,
}

/// How to look into the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Where its time goes.
    Flame,
    /// Where it allocates.
    Allocations,
}

pub(crate) const USAGE: &str = "\
cargo bench [--profile profiling] -- [WORD…] [--quick] [--list] [--planning | --flame | --allocations]
  WORD           only the parts whose names hold one of the words
  --quick        a short run, to see that everything works: its figures mean nothing
  --list         the names of the parts
  --planning     by size, fan-out, bridges and subscribers, and what RabbitMQ needs for them
  --flame        a flame graph of the bridge's own time on the hot paths, in target/bench/
  --allocations  what the bridge allocates on the hot paths, in target/bench/";

impl Options {
    /// Reads the arguments; an error is what to tell the user.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                // Cargo says so to every benchmark.
                "--bench" => {}
                "--quick" => options.quick = true,
                "--list" => options.list = true,
                "--planning" => options.planning = true,
                "--flame" => options.profile = Some(Profile::Flame),
                "--allocations" => options.profile = Some(Profile::Allocations),
                "--help" | "-h" => return Err(USAGE.to_owned()),
                other if other.starts_with('-') => {
                    return Err(format!("{other} is not an option\n\n{USAGE}"));
                }
                word => options.filters.push(word.to_lowercase()),
            }
        }
        Ok(options)
    }

    /// Whether a part of this name is wanted.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|word| part.contains(word.as_str()))
    }

    /// Whether the figures are those that the documentation shows.
    pub(crate) fn is_whole(&self) -> bool {
        self.filters.is_empty() && !self.quick
    }

    /// `whole`, or in a short run `quick`.
    pub(crate) fn pick<T>(&self, whole: T, quick: T) -> T {
        if self.quick { quick } else { whole }
    }
}
