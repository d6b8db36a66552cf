//! The subscribers of a run: of all three kinds, some always well, some that fail in a way of
//! their own.

use std::fmt;

use super::chance::Mood;

/// The party that every case has.
pub const EVERYONE: &str = "everyone";
/// The party that one case in ten has.
pub const SOME: &str = "some";
/// How many deliveries a queue that is made to be full takes.
pub const FULL: i64 = 20;

/// One subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    HttpWell,
    /// Fails as [`Mood::of`] says.
    HttpMoody,
    /// Nothing listens there.
    HttpRefused,
    /// Its name does not resolve.
    HttpUnresolvable,
    HomeWell,
    /// Its queue does not exist.
    HomeMissing,
    /// Its queue takes [`FULL`] deliveries, and refuses the others.
    HomeFull,
    AwayWell,
    AwayMissing,
    AwayFull,
    /// A guest: its exchange on its own broker comes and goes.
    AwayClosing,
    /// A guest: its queue takes everything and confirms nothing while its process is suspended.
    HomeStuck,
    /// A guest: the bridge may write to its exchange, or not.
    HomeDenied,
    /// A guest: its exchange comes and goes.
    HomeGone,
}

/// What must become of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Delivered by the first attempt.
    First,
    /// Delivered by the second.
    Second,
    /// Kept as a dead letter.
    Dead,
    /// Delivered or kept: it depends on what came before it.
    Either,
}

impl Who {
    pub const ALL: [Self; 10] = [
        Self::HttpWell,
        Self::HttpMoody,
        Self::HttpRefused,
        Self::HttpUnresolvable,
        Self::HomeWell,
        Self::HomeMissing,
        Self::HomeFull,
        Self::AwayWell,
        Self::AwayMissing,
        Self::AwayFull,
    ];

    /// Those who take part only where a run asks for them: well but for what that run does to them.
    pub const GUESTS: [Self; 4] = [
        Self::AwayClosing,
        Self::HomeStuck,
        Self::HomeDenied,
        Self::HomeGone,
    ];

    /// Those who take everything at once, one of each kind.
    pub const WELL: [Self; 3] = [Self::HttpWell, Self::HomeWell, Self::AwayWell];

    pub fn id(self) -> &'static str {
        match self {
            Self::HttpWell => "http-well",
            Self::HttpMoody => "http-moody",
            Self::HttpRefused => "http-refused",
            Self::HttpUnresolvable => "http-unresolvable",
            Self::HomeWell => "home-well",
            Self::HomeMissing => "home-missing",
            Self::HomeFull => "home-full",
            Self::AwayWell => "away-well",
            Self::AwayMissing => "away-missing",
            Self::AwayFull => "away-full",
            Self::AwayClosing => "away-closing",
            Self::HomeStuck => "home-stuck",
            Self::HomeDenied => "home-denied",
            Self::HomeGone => "home-gone",
        }
    }

    /// The party that it is; those who fail for good get one event in ten.
    pub fn party(self) -> &'static str {
        match self {
            Self::HttpWell | Self::HttpMoody | Self::HomeWell | Self::AwayWell => EVERYONE,
            guest if Self::GUESTS.contains(&guest) => EVERYONE,
            _ => SOME,
        }
    }

    /// Whether its deliveries depend on a broker of its own.
    pub fn away(self) -> bool {
        matches!(
            self,
            Self::AwayWell | Self::AwayMissing | Self::AwayFull | Self::AwayClosing
        )
    }

    /// Whether its queue is looked at only at the end of the run.
    pub fn read_at_the_end(self) -> bool {
        matches!(self, Self::HomeFull | Self::AwayFull)
    }

    /// What must become of the delivery of an event, if nothing hurts this subscriber besides.
    pub fn fate(self, seed: u64, event: usize) -> Fate {
        match self {
            Self::HttpWell
            | Self::HomeWell
            | Self::AwayWell
            | Self::AwayClosing
            | Self::HomeStuck
            | Self::HomeDenied
            | Self::HomeGone => Fate::First,
            Self::HomeFull | Self::AwayFull => Fate::Either,
            Self::HttpRefused | Self::HttpUnresolvable | Self::HomeMissing | Self::AwayMissing => {
                Fate::Dead
            }
            Self::HttpMoody => match [1, 2].map(|attempt| Mood::of(seed, event, attempt)) {
                [Mood::Well, _] => Fate::First,
                [_, Mood::Well] => Fate::Second,
                _ => Fate::Dead,
            },
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// Who of the regular cast is entitled to the event of this number; guests are, to every one.
pub fn entitled(event: usize) -> impl Iterator<Item = Who> {
    let rare = event.is_multiple_of(10);
    Who::ALL
        .into_iter()
        .filter(move |who| rare || who.party() == EVERYONE)
}

/// The parties of the case of this event.
pub fn parties(event: usize) -> &'static [&'static str] {
    if event.is_multiple_of(10) {
        &[EVERYONE, SOME]
    } else {
        &[EVERYONE]
    }
}
