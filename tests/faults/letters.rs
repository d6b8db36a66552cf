//! What a run that touches only some subscribers must show besides the account: the reasons in their
//! dead letters, and that the others were reached as quickly as ever.

use std::time::{Duration, Instant};

use super::{cast::Who, stage::Stage};

/// What half of all must be quicker than where others are in trouble: far below `delivery.timeout`,
/// which is what waiting for somebody else costs. Generous, since the machine may have other things to
/// do.
pub const USUAL: Duration = Duration::from_secs(1);

/// Why deliveries of a subscriber may be dead; the first reason must be that of most, of a few on a
/// machine that may be busy.
pub type Because = (Who, &'static [&'static str]);

/// Looks at every dead letter of these subscribers: two attempts, each with a reason that the trouble
/// explains. An attempt may also time out: beginnings and ends of a trouble hold things up, and so
/// does a machine with other things to do.
pub fn judge_letters(stage: &Stage, because: &[Because]) {
    let letters = stage.letters();
    for (who, reasons) in because {
        let (mut all, mut usual) = (0, 0);
        for letter in &letters {
            let header = |name: &str| letter.header(name).unwrap_or_default();
            if header("hookbridge-subscriber") != who.id() {
                continue;
            }
            let [first, last] = ["hookbridge-first-reason", "hookbridge-reason"].map(header);
            all += 1;
            usual += usize::from(last == reasons[0]);
            let explained = |is: &str| is == "timeout" || reasons.contains(&is);
            let attempts = header("hookbridge-attempts");
            if attempts != "2" || !explained(&first) || !explained(&last) {
                let words = ["hookbridge-first-detail", "hookbridge-detail"].map(header);
                stage.wrong(format!(
                    "{who} is dead after {attempts} attempts: {first} and {last}: {words:?}"
                ));
            }
        }
        stage.remark(format!(
            "{usual} of {all} dead letters of {who} say {}",
            reasons[0]
        ));
        if usual <= stage.a_share(all) {
            let reason = reasons[0];
            stage.wrong(format!(
                "only {usual} of {all} dead letters of {who} say {reason}"
            ));
        }
    }
}

/// Whether these were reached quickly, half of the time within `usual`, by what was sent since then.
pub fn judge_latency(stage: &Stage, of: &[Who], since: Instant, usual: Duration) {
    let to = Instant::now();
    for who in of {
        let took = stage.ledger.latencies(*who, since, to);
        let (Some(median), Some(most)) = (took.get(took.len() / 2), took.last()) else {
            stage.wrong(format!("{who} got nothing meanwhile"));
            continue;
        };
        let nearly_all = took[took.len() * 19 / 20];
        stage.remark(format!(
            "{who}: {} meanwhile, after {median:.0?}, 95 of 100 within {nearly_all:.0?}, all within {most:.0?}",
            took.len()
        ));
        if *median > stage.at_most(usual) {
            stage.wrong(format!("{who} waits {median:?} for others"));
        }
    }
}
