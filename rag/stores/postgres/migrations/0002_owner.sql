-- What servers share besides: answers that are kept, questions for the owner, messages on their way to a person.
-- needs: 1
-- undo loses: the questions and figures for the owner, and messages to the owner that are not delivered yet

-- An answer that is lost is asked for again: nothing waits for the disk, and replicas do without.
CREATE UNLOGGED TABLE rag.answers (
    key text PRIMARY KEY,
    asked integer NOT NULL,  -- how often, while the row lives
    ends_at timestamptz NOT NULL,  -- of the row, and of the answer in it
    asking_until timestamptz NOT NULL DEFAULT '-infinity',
    barred boolean NOT NULL DEFAULT false,
    used_at timestamptz NOT NULL DEFAULT '-infinity',
    size integer NOT NULL DEFAULT 0,  -- of value; 0 where there is none
    value bytea
);
CREATE INDEX answers_by_end ON rag.answers (ends_at);
CREATE INDEX answers_by_use ON rag.answers (used_at, key) INCLUDE (size) WHERE size > 0;

CREATE FUNCTION rag.look_for_answer(
    _key text, _lease_s float8, _ttl_s float8, _kept_from integer,
    OUT value bytea, OUT may_keep boolean, OUT is_asked boolean
) LANGUAGE plpgsql SET lock_timeout = '250ms' AS $$
#variable_conflict use_column
DECLARE
    _now timestamptz := clock_timestamp();
    _kept rag.answers;
BEGIN
    may_keep := false;
    is_asked := false;
    -- A hit waits for no writer.
    SELECT * INTO _kept FROM rag.answers WHERE key = _key AND size > 0 AND ends_at > _now;
    IF FOUND THEN
        value := _kept.value;
        IF _kept.used_at < _now - interval '1 minute' THEN
            UPDATE rag.answers SET used_at = _now WHERE key = _key;
        END IF;
        RETURN;
    END IF;
    DELETE FROM rag.answers WHERE key IN (
        SELECT key FROM rag.answers WHERE ends_at <= _now ORDER BY ends_at LIMIT 5 FOR UPDATE SKIP LOCKED
    );
    DELETE FROM rag.answers WHERE key = _key AND ends_at <= _now;
    INSERT INTO rag.answers AS known (key, asked, ends_at) VALUES (_key, 1, _now + make_interval(secs => _ttl_s))
        ON CONFLICT (key) DO UPDATE SET asked = known.asked + 1 RETURNING * INTO _kept;
    value := _kept.value;
    IF _kept.size > 0 OR _kept.barred OR _kept.asked < _kept_from THEN
        RETURN;
    END IF;
    is_asked := _kept.asking_until > _now;
    may_keep := NOT is_asked;
    IF may_keep THEN
        UPDATE rag.answers SET asking_until = _now + make_interval(secs => _lease_s) WHERE key = _key;
    END IF;
END $$;

-- Of more than _most_bytes of answers those unused for the longest time go.
CREATE FUNCTION rag.keep_answer(_key text, _value bytea, _ttl_s float8, _most_bytes bigint) RETURNS void
LANGUAGE plpgsql SET lock_timeout = '250ms' AS $$
DECLARE
    _now timestamptz;
BEGIN
    PERFORM rag.lock_for('answers');
    _now := clock_timestamp();
    UPDATE rag.answers SET
        value = _value, size = octet_length(_value), used_at = _now, ends_at = _now + make_interval(secs => _ttl_s),
        asking_until = '-infinity'
        WHERE key = _key AND NOT barred;
    IF (SELECT sum(size) FROM rag.answers WHERE size > 0) > _most_bytes THEN
        DELETE FROM rag.answers WHERE key IN (
            SELECT key FROM (
                SELECT key, sum(size) OVER (ORDER BY used_at DESC, key DESC) AS bytes FROM rag.answers WHERE size > 0
            ) AS newest_first WHERE bytes > _most_bytes
        );
    END IF;
END $$;

-- What visitors wrote is bytes, because lone surrogates and NULs have to come back as they were. What rows are found by
-- is a hash: text of any length goes into no index.
CREATE TABLE rag.questions (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,  -- to the minute
    question bytea NOT NULL,
    words bytea NOT NULL,  -- SHA-256 of the question without what does not count; equal ones are one question
    outcome text NOT NULL,
    language text NOT NULL,
    page bytea NOT NULL,
    similarity float8,
    seconds float8 NOT NULL,
    tokens integer NOT NULL,
    build text NOT NULL,
    rating text NOT NULL DEFAULT '',
    reason bytea NOT NULL DEFAULT '',
    about bytea  -- one question of one conversation
);
CREATE INDEX questions_by_words ON rag.questions (words, at);
CREATE INDEX questions_by_time ON rag.questions (at);
CREATE INDEX questions_about ON rag.questions (about) WHERE about IS NOT NULL;
CREATE TABLE rag.question_vectors (words bytea PRIMARY KEY, vector bytea NOT NULL);
CREATE TABLE rag.figures (day integer NOT NULL, what text NOT NULL, amount bigint NOT NULL, PRIMARY KEY (day, what));
CREATE TABLE rag.cited (day integer NOT NULL, url bytea NOT NULL, times bigint NOT NULL);
CREATE UNIQUE INDEX cited_by_url ON rag.cited (day, sha256(url));
CREATE TABLE rag.degraded (minute bigint PRIMARY KEY);  -- since 1970; one in which an answer had to do without something

CREATE FUNCTION rag.forget_orphaned_vectors(_words bytea[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM rag.question_vectors AS orphan
        WHERE words = ANY(_words) AND NOT EXISTS (SELECT FROM rag.questions WHERE questions.words = orphan.words)
$$;

CREATE FUNCTION rag.log_questions(
    _questions bytea[], _words bytea[], _outcomes text[], _languages text[], _pages bytea[], _similarities float8[],
    _seconds float8[], _tokens integer[], _builds text[], _abouts bytea[], _vectors bytea[],
    _figures jsonb, _urls bytea[], _times integer[], _degraded boolean, _days float8, _figures_days integer
) RETURNS void LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
#variable_conflict use_column
DECLARE
    _today integer;
    _minute bigint;
    _gone bytea[];
BEGIN
    PERFORM rag.lock_for('questions');
    _today := rag.today();
    _minute := floor(extract(epoch FROM clock_timestamp()) / 60);
    INSERT INTO rag.questions
        (at, question, words, outcome, language, page, similarity, seconds, tokens, build, about)
        SELECT to_timestamp(_minute * 60), given.* FROM unnest(
            _questions, _words, _outcomes, _languages, _pages, _similarities, _seconds, _tokens, _builds, _abouts
        ) AS given;
    -- One model's is as good as another of its; another model's has mostly another length.
    INSERT INTO rag.question_vectors AS known
        SELECT DISTINCT ON (words) words, vector FROM unnest(_words, _vectors) AS given (words, vector)
        WHERE vector IS NOT NULL
        ON CONFLICT (words) DO UPDATE SET vector = excluded.vector
        WHERE octet_length(known.vector) <> octet_length(excluded.vector);
    INSERT INTO rag.figures AS known SELECT _today, key, value::bigint FROM jsonb_each_text(_figures)
        ON CONFLICT (day, what) DO UPDATE SET amount = known.amount + excluded.amount;
    INSERT INTO rag.cited AS known SELECT _today, url, times FROM unnest(_urls, _times) AS given (url, times)
        ON CONFLICT (day, sha256(url)) DO UPDATE SET times = known.times + excluded.times;
    IF _degraded THEN
        INSERT INTO rag.degraded VALUES (_minute) ON CONFLICT DO NOTHING;
    END IF;
    -- Whatever is too old goes in pieces, so that nobody waits for it.
    WITH gone AS (
        DELETE FROM rag.questions WHERE number IN (
            SELECT number FROM rag.questions
            WHERE at < to_timestamp((floor(_today - _days) + 1) * 86400) ORDER BY at LIMIT 1000
        ) RETURNING words
    )
    SELECT array_agg(DISTINCT words) INTO _gone FROM gone;
    PERFORM rag.forget_orphaned_vectors(_gone);
    DELETE FROM rag.figures WHERE day <= _today - _figures_days;
    DELETE FROM rag.cited WHERE day <= _today - _figures_days;
    DELETE FROM rag.degraded WHERE minute <= (_today - _figures_days) * 1440;
END $$;

CREATE FUNCTION rag.dislike_question(
    _about bytea, _reason bytea, _question bytea, _words bytea, _outcome text, _language text
) RETURNS void LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
BEGIN
    PERFORM rag.lock_for('questions');
    UPDATE rag.questions SET rating = 'down', reason = _reason WHERE about = _about;
    IF NOT FOUND THEN
        INSERT INTO rag.questions
            (at, question, words, outcome, language, page, seconds, tokens, build, rating, reason, about)
            VALUES (date_trunc('minute', clock_timestamp()), _question, _words, _outcome, _language, '', 0, 0, '',
                    'down', _reason, _about);
    END IF;
END $$;

CREATE FUNCTION rag.forget_questions(_abouts bytea[]) RETURNS void LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    _gone bytea[];
BEGIN
    PERFORM rag.lock_for('questions');
    WITH gone AS (DELETE FROM rag.questions WHERE about = ANY(_abouts) RETURNING words)
    SELECT array_agg(DISTINCT words) INTO _gone FROM gone;
    PERFORM rag.forget_orphaned_vectors(_gone);
END $$;

CREATE TABLE rag.outbox (
    id text PRIMARY KEY,
    channel text NOT NULL,
    payload bytea NOT NULL,
    put_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    tries integer NOT NULL DEFAULT 0
);
CREATE INDEX outbox_by_due ON rag.outbox (due_at);
CREATE TABLE rag.put_once (what text PRIMARY KEY, put_at timestamptz NOT NULL);

-- Takes all of the messages; false where there is no more room, or where some were put under the name _once before.
CREATE FUNCTION rag.put_messages(
    _ids text[], _channels text[], _payloads bytea[], _once text, _most integer, _known_s float8
) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    _now timestamptz;
BEGIN
    PERFORM rag.lock_for('outbox');
    _now := clock_timestamp();
    IF (SELECT count(*) FROM rag.outbox) + cardinality(_ids) > _most THEN
        RETURN false;
    END IF;
    IF _once <> '' THEN
        INSERT INTO rag.put_once VALUES (_once, _now) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        DELETE FROM rag.put_once WHERE put_at < _now - make_interval(secs => _known_s);
    END IF;
    INSERT INTO rag.outbox (id, channel, payload, put_at, due_at)
        SELECT given.*, _now, _now FROM unnest(_ids, _channels, _payloads) AS given;
    RETURN true;
END $$;

-- undo
DROP FUNCTION rag.put_messages, rag.forget_questions, rag.dislike_question, rag.log_questions,
    rag.forget_orphaned_vectors, rag.keep_answer, rag.look_for_answer;
DROP TABLE rag.put_once, rag.outbox, rag.degraded, rag.cited, rag.figures, rag.question_vectors, rag.questions,
    rag.answers;
