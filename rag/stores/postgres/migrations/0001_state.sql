-- What servers share: conversations, feedback, hits of limits, spending.
-- needs: 1
-- undo loses: every conversation, all feedback, and what was counted and spent

-- Ids of conversations are SHA-256 only. Times are the database's own. What changes more than one row is a function:
-- one statement, so it happens as a whole or not at all, and PgBouncer may give each one another connection.
-- Locks are those of the transaction, and times are read once the lock is held: their order is that of the changes.

CREATE TABLE rag.conversations (
    id bytea PRIMARY KEY,
    began_at timestamptz NOT NULL,
    used_at timestamptz NOT NULL,
    newest integer NOT NULL  -- position of the newest message
);
CREATE INDEX conversations_by_use ON rag.conversations (used_at);

CREATE TABLE rag.messages (
    conversation bytea NOT NULL REFERENCES rag.conversations (id) ON DELETE CASCADE,
    position integer NOT NULL,
    role text NOT NULL,
    content bytea NOT NULL,  -- UTF-8; bytes, because lone surrogates and NULs have to come back as they were
    PRIMARY KEY (conversation, position)
);

CREATE TABLE rag.deletions (id bytea PRIMARY KEY, deleted_at timestamptz NOT NULL);
CREATE INDEX deletions_by_time ON rag.deletions (deleted_at);

CREATE TABLE rag.pruning (one boolean PRIMARY KEY DEFAULT true CHECK (one), pruned_at timestamptz NOT NULL);
INSERT INTO rag.pruning (pruned_at) VALUES ('-infinity');

CREATE FUNCTION rag.lock_for(_what text) RETURNS void LANGUAGE sql
AS $$ SELECT pg_advisory_xact_lock(hashtextextended('rag ' || _what, 0)) $$;

CREATE FUNCTION rag.write_messages(
    _id bytea, _roles text[], _contents bytea[], _only_unknown boolean, _asked_s_ago float8,
    _timeout_s float8, _most_messages integer, _most_conversations integer
) RETURNS TABLE (role text, content bytea) LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
#variable_conflict use_column
DECLARE
    _now timestamptz;
    _newest integer;
    _known boolean;
    _too_many bigint;
BEGIN
    PERFORM rag.lock_for('conversation ' || encode(_id, 'hex'));
    _now := clock_timestamp();
    SELECT newest INTO _newest FROM rag.conversations
        WHERE id = _id AND used_at >= _now - make_interval(secs => _timeout_s) FOR UPDATE;
    _known := FOUND;
    IF NOT (_known AND _only_unknown) AND cardinality(_roles) > 0 AND NOT EXISTS (
        SELECT FROM rag.deletions WHERE id = _id AND deleted_at > _now - make_interval(secs => _asked_s_ago)
    ) THEN
        IF NOT _known THEN
            DELETE FROM rag.conversations WHERE id = _id;
            INSERT INTO rag.conversations VALUES (_id, _now, _now, 0);
            _newest := 0;
        END IF;
        INSERT INTO rag.messages
            SELECT _id, _newest + number, said, words
            FROM unnest(_roles, _contents) WITH ORDINALITY AS given (said, words, number);
        _newest := _newest + cardinality(_roles);
        DELETE FROM rag.messages WHERE conversation = _id AND position <= _newest - _most_messages;
        UPDATE rag.conversations SET used_at = _now, newest = _newest WHERE id = _id;
        IF NOT _known AND _most_conversations IS NOT NULL THEN
            PERFORM rag.lock_for('conversations');
            SELECT count(*) - _most_conversations INTO _too_many FROM rag.conversations;
            DELETE FROM rag.conversations WHERE id IN (
                SELECT id FROM rag.conversations WHERE id <> _id
                ORDER BY used_at LIMIT greatest(0, _too_many) FOR UPDATE SKIP LOCKED
            );
        END IF;
    END IF;
    IF _only_unknown THEN
        RETURN QUERY SELECT said.role, said.content
            FROM rag.messages AS said JOIN rag.conversations ON id = conversation
            WHERE id = _id AND used_at >= _now - make_interval(secs => _timeout_s) ORDER BY position;
    END IF;
END $$;

CREATE FUNCTION rag.delete_conversation(_id bytea, _known_s float8) RETURNS void
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    _now timestamptz;
BEGIN
    PERFORM rag.lock_for('conversation ' || encode(_id, 'hex'));
    _now := clock_timestamp();
    DELETE FROM rag.conversations WHERE id = _id;
    -- Noted of unknown ones too: their first answer may be on its way.
    INSERT INTO rag.deletions VALUES (_id, _now) ON CONFLICT (id) DO UPDATE SET deleted_at = excluded.deleted_at;
    DELETE FROM rag.deletions WHERE id IN (
        SELECT id FROM rag.deletions WHERE deleted_at < _now - make_interval(secs => _known_s)
        LIMIT 100 FOR UPDATE SKIP LOCKED
    );
END $$;

CREATE TABLE rag.feedback (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    given_at timestamptz NOT NULL,
    rating text NOT NULL,
    reason bytea NOT NULL,
    question bytea NOT NULL,
    answer bytea NOT NULL,
    session bytea,
    about bytea NOT NULL UNIQUE  -- a session's answer
);
CREATE INDEX feedback_by_session ON rag.feedback (session);

CREATE TABLE rag.hits (
    key text NOT NULL,
    at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    amount integer NOT NULL,
    PRIMARY KEY (key, at)
);
CREATE INDEX hits_by_expiry ON rag.hits (expires_at);

-- Counts where the last _window_s seconds leave room for all of _amount; else counts none. Tells what is counted then, and
-- how old the oldest of it is.
CREATE FUNCTION rag.hit(
    _key text, _most bigint, _window_s float8, _amount integer, OUT is_counted boolean, OUT used bigint, OUT age_s float8
) LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    _window interval := make_interval(secs => _window_s);
    _now timestamptz;
BEGIN
    -- A crash of the database may forget the last half second of hits, and nothing waits for the disk.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM rag.lock_for('hits ' || _key);
    _now := clock_timestamp();
    DELETE FROM rag.hits WHERE (key, at) IN (
        SELECT key, at FROM rag.hits WHERE expires_at <= _now ORDER BY expires_at LIMIT 4 FOR UPDATE SKIP LOCKED
    );
    SELECT coalesce(sum(amount), 0), coalesce(extract(epoch FROM _now - min(at)), 0) INTO used, age_s
        FROM rag.hits WHERE key = _key AND at > _now - _window;
    is_counted := used + _amount <= _most;
    IF is_counted THEN
        used := used + _amount;
        INSERT INTO rag.hits VALUES (_key, _now, _now + _window, _amount)
            ON CONFLICT (key, at) DO UPDATE SET amount = hits.amount + excluded.amount;
    END IF;
END $$;

CREATE TABLE rag.spending (
    day integer NOT NULL,  -- since 1970, in UTC
    subject text NOT NULL,
    spent bigint NOT NULL,
    PRIMARY KEY (day, subject)
);
CREATE TABLE rag.held (
    id text NOT NULL,
    subject text NOT NULL,
    day integer NOT NULL,
    amount bigint NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (id, subject)
);
CREATE INDEX held_by_subject ON rag.held (subject, day);
CREATE INDEX held_by_end ON rag.held (until);
CREATE TABLE rag.announced (day integer NOT NULL, what text NOT NULL, PRIMARY KEY (day, what));

CREATE FUNCTION rag.today() RETURNS integer LANGUAGE sql
AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) / 86400)::integer $$;

CREATE FUNCTION rag.used(_subject text) RETURNS bigint LANGUAGE sql AS $$
    SELECT coalesce((SELECT spent FROM rag.spending WHERE day = rag.today() AND subject = _subject), 0)
         + coalesce((SELECT sum(amount) FROM rag.held WHERE day = rag.today() AND subject = _subject), 0)::bigint
$$;

-- _settled: [{"id": …, "amounts": {subject: amount}}]. One that is held no more has run out, and was charged.
CREATE FUNCTION rag.settle(_settled jsonb) RETURNS void LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
BEGIN
    PERFORM rag.lock_for('spending');
    WITH given AS (
        SELECT one ->> 'id' AS id, cost.key AS subject, cost.value::bigint AS amount
        FROM jsonb_array_elements(_settled) AS one, jsonb_each_text(one -> 'amounts') AS cost
    ), freed AS (
        DELETE FROM rag.held USING given WHERE held.id = given.id AND held.subject = given.subject
        RETURNING held.day, held.subject, given.amount
    )
    INSERT INTO rag.spending SELECT day, subject, sum(amount) FROM freed GROUP BY day, subject
        ON CONFLICT (day, subject) DO UPDATE SET spent = spending.spent + excluded.spent;
END $$;

-- Puts all of the claims aside, [[subject, amount, cap]], or none; returns the subject that has not that much left.
CREATE FUNCTION rag.reserve(_id text, _claims jsonb, _hold_s float8, _settled jsonb) RETURNS text
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    _refused_by text;
    _now timestamptz;
BEGIN
    PERFORM rag.settle(_settled);  -- and it holds the lock
    _now := clock_timestamp();
    -- Who held these is gone, and may have spent them: the worst case is what has become of them.
    WITH expired AS (DELETE FROM rag.held WHERE until <= _now RETURNING day, subject, amount)
    INSERT INTO rag.spending SELECT day, subject, sum(amount) FROM expired GROUP BY day, subject
        ON CONFLICT (day, subject) DO UPDATE SET spent = spending.spent + excluded.spent;
    SELECT claim ->> 0 INTO _refused_by FROM jsonb_array_elements(_claims) WITH ORDINALITY AS given (claim, number)
        WHERE rag.used(claim ->> 0) + (claim ->> 1)::bigint > (claim ->> 2)::bigint ORDER BY number LIMIT 1;
    IF _refused_by IS NULL THEN
        INSERT INTO rag.held
            SELECT _id, claim ->> 0, rag.today(), (claim ->> 1)::bigint, _now + make_interval(secs => _hold_s)
            FROM jsonb_array_elements(_claims) AS claim;
    END IF;
    RETURN _refused_by;
END $$;

CREATE FUNCTION rag.announce(_what text) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    _today integer := rag.today();
BEGIN
    PERFORM rag.lock_for('spending');
    DELETE FROM rag.announced WHERE day < _today;
    DELETE FROM rag.spending WHERE day < _today - 1 AND subject <> 'site';
    INSERT INTO rag.announced VALUES (_today, _what) ON CONFLICT DO NOTHING;
    RETURN FOUND;
END $$;

-- undo
DROP FUNCTION rag.announce, rag.reserve, rag.settle, rag.used, rag.today, rag.hit, rag.delete_conversation,
    rag.write_messages, rag.lock_for;
DROP TABLE rag.announced, rag.held, rag.spending, rag.hits, rag.feedback, rag.pruning, rag.deletions, rag.messages,
    rag.conversations;
