-- One row: the version that the last change of a subscriber was given.
CREATE TABLE revision (number BIGINT NOT NULL);
INSERT INTO revision (number) VALUES (0);

CREATE TABLE subscribers (
    id TEXT NOT NULL PRIMARY KEY,
    enabled BOOLEAN NOT NULL,
    -- JSON, without secrets.
    definition TEXT NOT NULL,
    -- JSON, of each secret its ciphertext; empty if there is none.
    secrets TEXT NOT NULL,
    -- Which key they are encrypted with.
    key_id TEXT NOT NULL,
    -- For the hook of a case: a keyed hash of its URL, which no two cases may share.
    hook_url BLOB UNIQUE,
    version BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL
);
CREATE INDEX subscribers_by_version ON subscribers (id, version);
CREATE INDEX subscribers_by_key ON subscribers (key_id);

-- Times are microseconds since 1970.
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- What makes it the same again: see store/archiving.rs.
    same TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    webhook_id TEXT,
    replay BIGINT NOT NULL,
    subscriber TEXT,
    webhook TEXT,
    case_id TEXT,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    attempts BIGINT,
    first_reason TEXT,
    first_detail TEXT,
    event_time BIGINT,
    received_at BIGINT,
    failed_at BIGINT NOT NULL,
    archived_at BIGINT NOT NULL,
    count BIGINT NOT NULL,
    routing_key TEXT NOT NULL,
    traceparent TEXT,
    payload BLOB NOT NULL,
    replayed_at BIGINT,
    replayed_by BIGINT
);
CREATE INDEX dead_letters_by_time ON dead_letters (failed_at, id);
CREATE INDEX dead_letters_by_kind ON dead_letters (kind, failed_at, id);
CREATE INDEX dead_letters_by_subscriber ON dead_letters (subscriber, failed_at, id);
CREATE INDEX dead_letters_by_webhook ON dead_letters (webhook, failed_at, id);
CREATE INDEX dead_letters_by_reason ON dead_letters (reason, failed_at, id);
CREATE INDEX dead_letters_by_webhook_id ON dead_letters (webhook_id, replay) WHERE webhook_id IS NOT NULL;
CREATE INDEX dead_letters_by_age ON dead_letters (archived_at);
CREATE INDEX dead_letters_open ON dead_letters (id) WHERE replayed_at IS NULL;

CREATE TABLE replays (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    filter TEXT NOT NULL,
    state TEXT NOT NULL,
    rate BIGINT NOT NULL,
    began_by TEXT NOT NULL,
    began_at BIGINT NOT NULL,
    ended_at BIGINT,
    -- No dead letter with a higher id is part of it.
    last_id BIGINT NOT NULL,
    total BIGINT NOT NULL,
    replayed BIGINT NOT NULL,
    skipped TEXT NOT NULL,
    trouble TEXT,
    -- How far it is: everything up to here was looked at.
    at_failed BIGINT NOT NULL,
    at_id BIGINT NOT NULL,
    -- Which bridge does it, until when unless it says so again.
    owner TEXT,
    owned_until BIGINT NOT NULL
);
CREATE INDEX replays_running ON replays (id) WHERE state = 'running';
