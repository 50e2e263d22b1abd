package center

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
)

// shownKick is the answer of kick and revoke.
type shownKick struct {
	Status      string
	Sessions    int
	Certain     string
	IssuedUntil string `json:"issued_until"`
	Ends        string
}

func (g *gateway) lookupRevocation(d push.DeviceID, tokenID string, issued push.MilliTime) bool {
	g.t.Helper()
	r, err := g.catalog.LookupRevocation(g.t.Context(), product, "alice", d, tokenID, issued)
	if err != nil {
		g.t.Fatal(err)
	}
	return r != nil
}

func TestKick_EndsWhatItNames(t *testing.T) {
	g := newGateway(t)
	g.rooms.kicked = push.Kicked{Sessions: 2}
	for body, want := range map[string]push.Kick{
		`{}`:                                {},
		`{"device":"phone"}`:                {Device: "phone"},
		`{"token_id":"t-1"}`:                {TokenID: "t-1"},
		`{"device":"ph/ne","token_id":"t"}`: {Device: "ph/ne", TokenID: "t"},
		`{"reason":"you moved"}`:            {Reason: "you moved"},
	} {
		g.rooms.kicks = nil
		var got shownKick
		g.do(ask{path: "/v1/users/" + url.PathEscape("al/ice") + "/kick", body: body}).want(t, 200).decode(t, &got)
		if got != (shownKick{Status: "confirmed", Sessions: 2}) {
			t.Errorf("%s: answered %+v", body, got)
		}
		if want := []kicked{{product, "al/ice", want}}; !slices.Equal(g.rooms.kicks, want) {
			t.Errorf("%s: rooms were told %+v, want %+v", body, g.rooms.kicks, want)
		}
	}
	if g.lookupRevocation("phone", "", 0) {
		t.Error("a kick revoked something")
	}
}

func TestKick_SaysHowCertainItIs(t *testing.T) {
	g := newGateway(t)
	at := push.Milli(g.clock.Now()).Add(3 * time.Second)
	g.rooms.kicked = push.Kicked{Sessions: 1, Certain: at}
	for _, path := range []string{"/v1/users/alice/kick", "/v1/users/alice/revoke"} {
		var got shownKick
		g.do(ask{path: path, body: `{}`}).want(t, 200).decode(t, &got)
		if got.Status != "pending" || got.Certain != showTime(at) || got.Sessions != 1 {
			t.Errorf("%s: got %+v, want it pending until %s", path, got, showTime(at))
		}
	}
	g.rooms.fail = errOut
	g.do(ask{path: "/v1/users/alice/kick", body: `{}`}).want(t, 503, "rooms_unavailable")
}

func TestRevoke_IsStoredBeforeSessionsEnd(t *testing.T) {
	g := newGateway(t)
	before := push.Milli(g.clock.Now())
	stored := false
	g.rooms.onKick = func() { stored = g.lookupRevocation("phone", "", before) }
	var got shownKick
	g.do(ask{path: "/v1/users/alice/revoke", body: `{"device":"phone","reason":"stolen"}`}).want(t, 200).decode(t, &got)
	if !stored {
		t.Error("sessions were ended while devices were still let in: one that connects meanwhile stays")
	}
	ends := before.Add(catalog.DefaultTokenLifetime + time.Hour)
	if want := (shownKick{Status: "confirmed", IssuedUntil: showTime(before), Ends: showTime(ends)}); got != want {
		t.Errorf("answered %+v, want %+v", got, want)
	}
	want := []kicked{{product, "alice", push.Kick{Kind: push.KickRevoked, Device: "phone", Reason: "stolen"}}}
	if !slices.Equal(g.rooms.kicks, want) {
		t.Errorf("rooms were told %+v, want %+v", g.rooms.kicks, want)
	}
}

func TestRevoke_IsLiftedAsItWasMade(t *testing.T) {
	g := newGateway(t)
	now := push.Milli(g.clock.Now())
	for _, c := range []struct{ body, query string }{
		{`{}`, ""}, {`{"device":"phone"}`, "?device=phone"}, {`{"token_id":"t/1 +"}`, "?token_id=" + url.QueryEscape("t/1 +")},
	} {
		path := "/v1/users/alice/revoke"
		g.do(ask{method: "DELETE", path: path + c.query}).want(t, 404, "revocation_not_found")
		g.do(ask{path: path, body: c.body}).want(t, 200)
		if !g.lookupRevocation("phone", "t/1 +", now) {
			t.Errorf("%s: nothing is refused", c.body)
		}
		g.do(ask{method: "DELETE", path: "/v1/users/bob/revoke" + c.query}).want(t, 404, "revocation_not_found")
		g.do(ask{method: "DELETE", path: path + c.query}).want(t, 204)
		if g.lookupRevocation("phone", "t/1 +", now) {
			t.Errorf("%s: still refused after it was lifted", c.body)
		}
		g.do(ask{method: "DELETE", path: path + c.query}).want(t, 404, "revocation_not_found")
	}
}

func TestRevoke_StaysInItsProduct(t *testing.T) {
	g := newGateway(t)
	g.makeProduct("news")
	g.do(ask{path: "/v1/users/alice/revoke", body: `{}`, key: g.makeKey("news", catalog.ScopeSessionsWrite)}).want(t, 200)
	if g.lookupRevocation("phone", "", 0) {
		t.Error("a product revoked another one's user")
	}
	if got := g.rooms.kicks; len(got) != 1 || got[0].product != "news" {
		t.Errorf("rooms were told %+v", got)
	}
}

func TestRevoke_FailuresOfParts(t *testing.T) {
	g := newGateway(t)
	g.rooms.fail = errOut
	g.do(ask{path: "/v1/users/alice/revoke", body: `{}`}).want(t, 503, "rooms_unavailable")
	if !g.lookupRevocation("phone", "", 0) {
		t.Error("after a room failed, devices are let in")
	}
	g.rooms.fail = nil
	g.do(ask{path: "/v1/users/alice/revoke", body: `{}`}).want(t, 200)
	for _, path := range []string{"/v1/users/a%00b/kick", "/v1/users/a%00b/revoke"} {
		g.do(ask{path: path, body: `{}`}).want(t, 400, "invalid_parameter")
	}
	for _, query := range []string{"?device=", "?device=a%00", "?token_id=", "?token_id=%ff", "?device=a&token_id=b", "?device=a&device=b"} {
		g.do(ask{method: "DELETE", path: "/v1/users/alice/revoke" + query}).want(t, 400, "invalid_parameter")
	}
	for _, path := range []string{"/v1/users/alice/kick", "/v1/users/alice/revoke"} {
		g.do(ask{path: path, body: `{`}).want(t, 400, "malformed_json")
		g.do(ask{path: path, body: `{"x":1}`}).want(t, 400, "invalid_request")
	}
}

func TestRevoke_AFullProductIsToldToWait(t *testing.T) {
	g := newGateway(t)
	for i := range catalog.MaxRevocations {
		_, err := g.catalog.Revoke(t.Context(), catalog.Revocation{
			Product: product, RevocationTarget: catalog.RevocationTarget{User: "bob", TokenID: fmt.Sprint(i)},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	g.do(ask{path: "/v1/users/alice/revoke", body: `{}`}).want(t, 429, "too_many_revocations")
	if len(g.rooms.kicks) != 0 {
		t.Error("sessions were ended that can come back at once")
	}
	g.do(ask{path: "/v1/users/bob/revoke", body: `{"token_id":"7"}`}).want(t, 200) // takes the place of one
	g.clock.advance(catalog.DefaultTokenLifetime + time.Hour)
	g.do(ask{path: "/v1/users/alice/revoke", body: `{}`}).want(t, 200)
}

// kickCases are bodies of kick and revoke, and what is wrong with them.
var kickCases = []struct {
	body         string
	kick, revoke []string
}{
	{`{}`, nil, nil},
	{`{"device":"phone","reason":""}`, nil, nil},
	{`{"token_id":"` + strings.Repeat("t", 128) + `"}`, nil, nil},
	{`{"device":"a","token_id":"b"}`, nil, []string{"/token_id not_allowed"}},
	{`{"device":""}`, []string{"/device empty"}, []string{"/device empty"}},
	{`{"device":null}`, []string{"/device wrong_type"}, []string{"/device wrong_type"}},
	{`{"device":"` + strings.Repeat("é", 65) + `"}`, []string{"/device too_long"}, []string{"/device too_long"}},
	{`{"token_id":""}`, []string{"/token_id empty"}, []string{"/token_id empty"}},
	{`{"token_id":"a\u007f"}`, []string{"/token_id control_character"}, []string{"/token_id control_character"}},
	{`{"token_id":"` + strings.Repeat("t", 129) + `"}`, []string{"/token_id too_long"}, []string{"/token_id too_long"}},
	{`{"reason":"` + strings.Repeat("r", 201) + `"}`, []string{"/reason too_long"}, []string{"/reason too_long"}},
	{`{"reason":"a\u0085"}`, []string{"/reason control_character"}, []string{"/reason control_character"}},
	{`{"user":"alice"}`, []string{"/user unknown_member"}, []string{"/user unknown_member"}},
	{`[]`, []string{" wrong_type"}, []string{" wrong_type"}},
}

func TestParseKick_SaysWhereAndWhat_AndAgreesWithTheContract(t *testing.T) {
	for _, c := range kickCases {
		for schema, want := range map[string][]string{"KickRequest": c.kick, "RevokeRequest": c.revoke} {
			kind := push.KickKicked
			if schema == "RevokeRequest" {
				kind = push.KickRevoked
			}
			_, err := parseKick([]byte(c.body), kind)
			if got := places(t, err); !slices.Equal(got, want) {
				t.Errorf("%s %s:\n got %q\nwant %q", schema, c.body, got, want)
			}
			theirs := judge(loadContract(t).schema(t, "/components/schemas/"+schema), []byte(c.body))
			if (theirs == nil) != (want == nil) {
				t.Errorf("%s %s: the contract says %v, want %v", schema, c.body, theirs, want)
			}
		}
	}
}

// shownRevocations is a page of GET /v1/revocations.
type shownRevocations struct {
	Revocations []struct {
		User, Device, Reason string
		TokenID              string `json:"token_id"`
		IssuedUntil          string `json:"issued_until"`
		Ends                 string
	}
	NextCursor string `json:"next_cursor"`
}

func TestRevocations_OfOneProductAreListedAsLongAsTheyHold(t *testing.T) {
	g := newGateway(t)
	g.makeProduct("news")
	var empty shownRevocations
	if got := g.do(ask{method: "GET", path: "/v1/revocations"}).want(t, 200); string(got.body) != `{"revocations":[]}`+"\n" {
		t.Errorf("of none: got %s", got.body)
	}
	g.do(ask{path: "/v1/users/alice/revoke", body: `{}`, key: g.makeKey("news", catalog.ScopeSessionsWrite)}).want(t, 200)
	var revoked shownKick
	for _, body := range []string{`{"token_id":"t-1"}`, `{}`, `{"device":"pad"}`, `{"device":"phone","reason":"stolen"}`} {
		g.do(ask{path: "/v1/users/alice/revoke", body: body}).want(t, 200).decode(t, &revoked)
	}
	g.do(ask{method: "DELETE", path: "/v1/users/alice/revoke?device=pad"}).want(t, 204)
	var got []string
	for cursor, pages := "", 0; ; pages++ {
		page := empty
		g.do(ask{method: "GET", path: "/v1/revocations?limit=2" + cursor}).want(t, 200).decode(t, &page)
		for _, r := range page.Revocations {
			got = append(got, fmt.Sprintf("%s|%s|%s|%s", r.User, r.Device, r.TokenID, r.Reason))
			if r.IssuedUntil != revoked.IssuedUntil || r.Ends != revoked.Ends {
				t.Errorf("%+v: want it to refuse what was issued until %s, and to end at %s", r, revoked.IssuedUntil, revoked.Ends)
			}
		}
		if page.NextCursor == "" || pages > 3 {
			break
		}
		cursor = "&cursor=" + url.QueryEscape(page.NextCursor)
	}
	if want := []string{"alice|||", "alice||t-1|", "alice|phone||stolen"}; !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	g.clock.advance(catalog.DefaultTokenLifetime + time.Hour)
	page := empty
	g.do(ask{method: "GET", path: "/v1/revocations"}).want(t, 200).decode(t, &page)
	if len(page.Revocations) != 0 {
		t.Errorf("after all have ended: got %+v", page)
	}
	for _, query := range []string{"?limit=0", "?limit=201", "?cursor=!", "?cursor=YQ"} {
		g.do(ask{method: "GET", path: "/v1/revocations" + query}).want(t, 400, "invalid_parameter")
	}
}
