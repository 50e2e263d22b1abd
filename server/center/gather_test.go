package center

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/saver"
)

// setTokenTags has the store keep the tags of a device's token, as its room does.
func (g *gateway) setTokenTags(u push.UserID, d push.DeviceID, tags ...push.Tag) {
	g.t.Helper()
	c := saver.TagChange{UserRef: userRef(u), Device: d, Token: true, Replace: true, Add: tags}
	if r := g.store.ChangeTags(g.t.Context(), []saver.TagChange{c}); r[0].Err != nil {
		g.t.Fatal(r[0].Err)
	}
}

// few makes people of whom some have the tag vip: alice by herself, bob's phone by its token, cathy's web by the server, and dave, who
// has no device.
func few(g *gateway) {
	for _, u := range []push.UserID{"alice", "bob", "cathy"} {
		g.open(u, "phone")
		g.open(u, "web")
	}
	g.setTags("alice", "", "vip")
	g.setTokenTags("bob", "phone", "vip")
	g.setTags("cathy", "web", "vip", "trial")
	g.setTags("dave", "", "vip")
}

// holds returns who has something in the own slot, each with the devices that it is for.
func (g *gateway) holds() string {
	g.t.Helper()
	var all []string
	for _, u := range []push.UserID{"alice", "bob", "cathy", "dave"} {
		for _, e := range g.own(u) {
			of := string(u)
			if e.Filter != nil {
				of += fmt.Sprint(e.Filter.Devices)
				if e.Filter.Tags != nil {
					g.t.Errorf("the entry of %s asks for tags", u)
				}
			}
			all = append(all, of)
		}
	}
	return strings.Join(all, " ")
}

func TestGather_AFewUsersHaveItInTheirOwnSlots(t *testing.T) {
	for _, c := range []struct{ to, want string }{
		{`{"tags":{"all":["vip"]}}`, "alice bob[phone] cathy[web] dave"},
		{`{"tags":{"all":["vip"],"not":["trial"]}}`, "alice[phone web] bob[phone]"},
		{`{"tags":{"any":["vip","nobody"]}}`, "alice bob[phone] cathy[web] dave"},
		{`{"tags":{"all":["vip"]},"platforms":["android"]}`, "alice[] bob[phone] cathy[web] dave[]"},
		{`{"tags":{"all":["vip"]},"platforms":["ios"]}`, "dave[]"},
		{`{"tags":{"all":["nobody"]}}`, ""},
		{`{"tags":{"all":["vip"]},"membership":"at_send"}`, "alice bob[phone] cathy[web] dave"},
	} {
		g := newGateway(t)
		few(g)
		a := g.publish(`{"to":`+c.to+`,"message":{"body":1}}`).want(t, 201)
		if got := g.holds(); got != c.want {
			t.Errorf("%s lies with %q, want %q", c.to, got, c.want)
		}
		users := 0
		if c.want != "" {
			users = strings.Count(strings.ReplaceAll(c.want, "phone web", ""), " ") + 1
		}
		if want := fmt.Sprintf(`"targets":{"users":%d,"tags":`, users); !bytes.Contains(a.body, []byte(want)) ||
			!bytes.Contains(a.body, []byte(`"membership":"at_send"`)) {
			t.Errorf("%s is answered with %s, want %s in it", c.to, a.body, want)
		}
		if len(g.slot("alice", push.Common)) != 0 {
			t.Errorf("%s lies in a common slot, too", c.to)
		}
	}
}

func TestGather_WhatIsNotSmallIsSettledAtDelivery(t *testing.T) {
	for _, to := range []string{
		`{"tags":{"all":["vip"]},"membership":"at_delivery"}`, `{"tags":{"not":["trial"]}}`, `{"tags":{"any":["vip",{"not":["trial"]}]}}`,
		`{"tags":{"any":["vip","many"]}}`,
	} {
		g := newGateway(t, func(c *Config) { c.Limits.SmallAudience = 4 })
		few(g)
		g.setTags("erin", "", "many")
		for _, validate := range []string{"", `,"validate_only":true`} {
			a := g.publish(`{"to":` + to + `,"message":{"body":1}` + validate + `}`)
			if !bytes.Contains(a.body, []byte(`"membership":"at_delivery"`)) {
				t.Errorf("%s: got %s", to, a.body)
			}
		}
		if n := len(g.slot("alice", push.Common)); n != 1 || g.holds() != "" {
			t.Errorf("%s: %d entries in the common slot, and in own ones %q", to, n, g.holds())
		}
	}
}

func TestGather_AtSendIsRefusedWhereItCannotBe(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.Limits.SmallAudience = 3 })
	few(g)
	for _, to := range []string{`{"tags":{"all":["vip"]},"membership":"at_send"}`, `{"tags":{"not":["vip"]},"membership":"at_send"}`} {
		for _, validate := range []string{"", `,"validate_only":true`} {
			g.publish(`{"to":`+to+`,"message":{"body":1}`+validate+`}`).want(t, 409, "audience_too_large")
		}
	}
	if g.holds() != "" || len(g.slot("alice", push.Common)) != 0 {
		t.Error("it lies somewhere")
	}
	g.publish(`{"to":{"everyone":true,"membership":"at_delivery"},"message":{"body":1}}`).want(t, 400, "invalid_request")
	g.publish(`{"to":{"tags":{"all":["vip"]},"membership":"later"},"message":{"body":1}}`).want(t, 400, "invalid_request")
}

func TestGather_ARepeatIsAnsweredAsTheFirstWhateverTheTagsAreByNow(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.Limits.SmallAudience = 5 })
	few(g)
	body := `{"to":{"tags":{"all":["vip"]}},"message":{"body":1}}`
	first := g.publish(body, "k").want(t, 201)
	was := g.holds()
	change := []func(){
		func() { g.setTags("alice", "") },
		func() {
			for i := range 6 {
				g.setTags(push.UserID(fmt.Sprint("more", i)), "", "vip")
			}
		},
	}
	for i, f := range change {
		f()
		if again := g.publish(body, "k").want(t, 201); !bytes.Equal(again.body, first.body) {
			t.Errorf("%d: the repeat is %s, want %s", i, again.body, first.body)
		}
	}
	if got := g.holds(); got != was || len(g.slot("alice", push.Common)) != 0 {
		t.Errorf("%q have it, want %q", got, was)
	}
	g.publish(strings.Replace(body, `]}}`, `]},"membership":"at_delivery"}`, 1), "k").want(t, 422, "idempotency_key_reused")
}

// TestGather_MessagesOfABatchShareWhatIsSmall: their users lie in memory together.
func TestGather_MessagesOfABatchShareWhatIsSmall(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.Limits.SmallAudience = 7 })
	few(g)
	one := `{"to":{"tags":{"all":["vip"]}},"message":{"body":1}}`
	for _, validate := range []string{`,"validate_only":true`, ""} {
		var got struct {
			Results []struct{ Message, Validated struct{ Membership string } }
		}
		g.do(ask{path: "/v1/messages/batch", body: `{"messages":[` + one + `,` + one + `]` + validate + `}`}).want(t, 200).decode(t, &got)
		var all []string
		for _, r := range got.Results {
			all = append(all, r.Message.Membership+r.Validated.Membership)
		}
		if !slices.Equal(all, []string{"at_send", "at_delivery"}) {
			t.Errorf("got %q", all)
		}
	}
}
