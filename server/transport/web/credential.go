package web

import (
	"context"
	"net/http"
	"time"

	"carillon/server/auth"
	"carillon/server/wire"
)

// Tickets are the one-time tickets that stand for a token where a client cannot send headers (EventSource). Redeem returns
// the token that a ticket was given for, once, and never again; ok is false if there is, or no longer is, such a ticket. It
// is safe for concurrent use. Tickets may lie elsewhere, so it may take a while and fail.
type Tickets interface {
	Redeem(ctx context.Context, ticket string) (token string, ok bool, err error)
}

// The codes of refused credentials. A token that does not hold is refused later, by the session.
const (
	CodeUnauthenticated = "unauthenticated"   // there is none
	CodeTokenInURL      = "token_in_url"      // a token where logs would keep it
	CodeTicketRefused   = "ticket_refused"    // unknown, used, or run out
	CodeInvalid         = "invalid_parameter" // Problem.Parameter says which
)

// maxTicket is the most bytes that a ticket has: more than any of ours.
const maxTicket = 128

// Bearer returns the device token of the header Authorization. Without one, or with another scheme, it returns a refusal.
func Bearer(r *http.Request) (token string, p *Problem) {
	values := r.Header.Values("Authorization")
	switch {
	case len(values) == 0:
		return "", &Problem{
			Status: http.StatusUnauthorized, Code: CodeUnauthenticated, Detail: "send Authorization: Bearer with a device token",
		}
	case len(values) > 1:
		return "", invalid("Authorization", "the header stands once")
	}
	token, ok := auth.BearerOf(values[0])
	switch {
	case !ok:
		return "", &Problem{
			Status: http.StatusUnauthorized, Code: CodeUnauthenticated, Parameter: "Authorization",
			Detail: "the header is of the form Authorization: Bearer TOKEN",
		}
	case len(token) > wire.MaxToken:
		return "", tooLong("Authorization", "token", wire.MaxToken)
	}
	return token, nil
}

// credential returns the token that a request shows: its own, or the one that its ticket stands for.
func credential(r *http.Request, ticket string, ts Tickets) (token string, p *Problem) {
	if ticket == "" {
		return Bearer(r)
	}
	if len(r.Header.Values("Authorization")) > 0 {
		return "", invalid("ticket", "a request shows a token or a ticket, not both")
	}
	if ts != nil {
		token, ok, err := ts.Redeem(r.Context(), ticket)
		if err != nil {
			return "", &Problem{
				Status: http.StatusServiceUnavailable, Code: wire.CloseOverloaded.String(), After: time.Second,
				Detail: "nobody can say now what the ticket stands for; ask for another",
			}
		}
		if ok {
			return token, nil
		}
	}
	return "", &Problem{
		Status: http.StatusUnauthorized, Code: CodeTicketRefused, Parameter: "ticket",
		Detail: "the ticket is unknown, was used, or has run out; ask for another",
	}
}
