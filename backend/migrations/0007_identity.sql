-- Who people are and how they prove it (auth-users.md §10).
CREATE TABLE wallet_credentials (
    id UUID PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users ON DELETE CASCADE,
    btc_address VARCHAR(90) COLLATE "C" NOT NULL,
    address_type VARCHAR(8) NOT NULL,
    verified_at TIMESTAMPTZ NOT NULL,
    last_used_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ
);
CREATE UNIQUE INDEX wallet_credentials_active_address ON wallet_credentials (btc_address)
    WHERE revoked_at IS NULL;
CREATE INDEX idx_wallet_credentials_user ON wallet_credentials (user_id);

CREATE TABLE wallet_address_history (
    id UUID PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users ON DELETE CASCADE,
    old_address VARCHAR(90) COLLATE "C",
    new_address VARCHAR(90) COLLATE "C",
    reason VARCHAR(16) NOT NULL CHECK (reason IN ('register', 'update', 'link', 'claimed', 'deleted')),
    changed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    ip_address INET
);
CREATE INDEX idx_wallet_address_history_user ON wallet_address_history (user_id, changed_at DESC);

CREATE TABLE refresh_tokens (
    id UUID PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users ON DELETE CASCADE,
    family_id UUID NOT NULL,
    token_hash CHAR(64) NOT NULL,
    auth_method VARCHAR(16) NOT NULL CHECK (auth_method IN ('wallet', 'email')),
    session_started_at TIMESTAMPTZ NOT NULL,
    issued_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    is_revoked BOOLEAN NOT NULL DEFAULT FALSE,
    revoked_at TIMESTAMPTZ,
    revoke_reason VARCHAR(24) CHECK (revoke_reason IN (
        'rotated', 'logout', 'logout_all', 'password_reset', 'password_change', 'reuse', 'banned', 'deleted'
    )),
    replaced_by UUID REFERENCES refresh_tokens ON DELETE SET NULL,
    ip_address INET,
    user_agent VARCHAR(512),
    CONSTRAINT refresh_tokens_hash_unique UNIQUE (token_hash),
    CONSTRAINT refresh_tokens_revocation CHECK (is_revoked = (revoked_at IS NOT NULL))
);
CREATE INDEX idx_refresh_tokens_user ON refresh_tokens (user_id) WHERE NOT is_revoked;
CREATE INDEX idx_refresh_tokens_family ON refresh_tokens (family_id);
CREATE INDEX idx_refresh_tokens_expiry ON refresh_tokens (expires_at);
-- ON DELETE SET NULL of replaced_by looks the successor up.
CREATE INDEX idx_refresh_tokens_successor ON refresh_tokens (replaced_by) WHERE replaced_by IS NOT NULL;

CREATE TABLE api_keys (
    id UUID PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users ON DELETE CASCADE,
    key_prefix VARCHAR(16) COLLATE "C" NOT NULL,
    key_hash VARCHAR(256) NOT NULL,
    name VARCHAR(128) NOT NULL,
    permissions JSONB NOT NULL DEFAULT '["read"]',
    last_used_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at TIMESTAMPTZ,
    is_revoked BOOLEAN NOT NULL DEFAULT FALSE,
    revoked_at TIMESTAMPTZ,
    CONSTRAINT api_keys_prefix_unique UNIQUE (key_prefix)
);
CREATE INDEX idx_api_keys_user ON api_keys (user_id) WHERE NOT is_revoked;

CREATE TABLE user_settings (
    user_id BIGINT PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    notifications JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(notifications) = 'object'),
    privacy JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(privacy) = 'object'),
    mining JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(mining) = 'object'),
    sound JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(sound) = 'object'),
    display JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(display) = 'object'),
    notification_email_verified_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE email_verification_tokens (
    id UUID PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users ON DELETE CASCADE,
    purpose VARCHAR(16) NOT NULL DEFAULT 'account' CHECK (purpose IN ('account', 'notification')),
    email VARCHAR(320) NOT NULL,
    token_hash CHAR(64) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at TIMESTAMPTZ NOT NULL,
    used_at TIMESTAMPTZ,
    CONSTRAINT email_verification_tokens_hash_unique UNIQUE (token_hash)
);
CREATE INDEX idx_email_verification_tokens_open ON email_verification_tokens (user_id, purpose)
    WHERE used_at IS NULL;
CREATE INDEX idx_email_verification_tokens_expiry ON email_verification_tokens (expires_at);

CREATE TABLE password_reset_tokens (
    id UUID PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users ON DELETE CASCADE,
    token_hash CHAR(64) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at TIMESTAMPTZ NOT NULL,
    used_at TIMESTAMPTZ,
    ip_address INET,
    CONSTRAINT password_reset_tokens_hash_unique UNIQUE (token_hash)
);
CREATE INDEX idx_password_reset_tokens_open ON password_reset_tokens (user_id) WHERE used_at IS NULL;
CREATE INDEX idx_password_reset_tokens_expiry ON password_reset_tokens (expires_at);

-- Failures per e-mail, whether or not an account has it: a lock tells nothing.
CREATE TABLE login_attempts (
    email_hash CHAR(64) PRIMARY KEY,
    failed_count INT NOT NULL,
    window_started_at TIMESTAMPTZ NOT NULL,
    locked_until TIMESTAMPTZ,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX idx_login_attempts_updated ON login_attempts (updated_at);

-- Mail that waits to be sent; holds no token.
CREATE TABLE email_outbox (
    id UUID PRIMARY KEY,
    user_id BIGINT REFERENCES users ON DELETE CASCADE,
    to_address VARCHAR(320) NOT NULL,
    template VARCHAR(32) NOT NULL,
    context JSONB NOT NULL,
    status VARCHAR(16) NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'sending', 'sent', 'failed', 'dropped')),
    attempts INT NOT NULL DEFAULT 0,
    next_attempt_at TIMESTAMPTZ NOT NULL,
    last_error VARCHAR(500),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    sent_at TIMESTAMPTZ
);
CREATE INDEX idx_email_outbox_pending ON email_outbox (next_attempt_at) WHERE status = 'pending';
CREATE INDEX idx_email_outbox_sending ON email_outbox (next_attempt_at) WHERE status = 'sending';
CREATE INDEX idx_email_outbox_user ON email_outbox (user_id);
