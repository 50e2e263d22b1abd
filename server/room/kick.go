package room

import (
	"context"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/wire"
)

// kickCodes are what clients are told.
var kickCodes = map[push.KickKind]wire.CloseCode{push.KickKicked: wire.CloseKicked, push.KickRevoked: wire.CloseRevoked}

// kickDetails stand in a kick whose caller gave no reason.
var kickDetails = map[push.KickKind]string{
	push.KickKicked:  "the session was ended by the product's server",
	push.KickRevoked: "the user, the device or the token was revoked",
}

func (s *session) hasTokenLocked(id string) bool {
	switch {
	case planted.Is(planted.TokenIDIgnored):
		return true
	case planted.Is(planted.TokenIDUnheard):
		return false
	}
	return s.tokenID == id
}

// Kick ends a user's sessions that k names, those that are still being opened too, and returns how many that were. What waits
// for them is not sent any more.
func (r *Room) Kick(ctx context.Context, p push.ProductID, u push.UserID, k push.Kick) (int, error) {
	policy, err := r.cfg.Policy(ctx, p)
	if push.KindOf(err) == push.KindNotFound {
		return 0, nil // no product, no session
	}
	if err != nil {
		return 0, err
	}
	code, detail := kickCodes[k.Kind], k.Reason
	if detail == "" {
		detail = kickDetails[k.Kind]
	}
	now, n := r.now(), 0
	for _, s := range r.sessionsAt(nil, p, policy.Shards, u) {
		s.mu.Lock()
		if s.state >= ending || k.Device != "" && k.Device != s.device() || k.TokenID != "" && !s.hasTokenLocked(k.TokenID) {
			s.mu.Unlock()
			continue
		}
		n++
		if planted.Is(planted.KickUnheard) {
			s.mu.Unlock()
			continue
		}
		s.endAndUnlock(now, code, detail)
	}
	return n, nil
}
