package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/clock/clocktest"
	"carillon/server/push"
)

// ticketBooth is a keeper of tickets with a clock of its own.
func ticketBooth(t testing.TB, c TicketConfig) (*Tickets, *clocktest.Clock) {
	t.Helper()
	hand := clocktest.At(noon)
	c.Clock = hand
	booth, err := NewTickets(c)
	if err != nil {
		t.Fatal(err)
	}
	return booth, hand
}

func holder(device string) Identity {
	return Identity{Product: &catalog.Product{ID: shop}, User: "alice", Device: push.DeviceID(device)}
}

func (t *Tickets) issue(tb testing.TB, device, token string) string {
	tb.Helper()
	text, err := t.Issue(tb.Context(), holder(device), token)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// redeem leaves out the error, which there never is.
func (t *Tickets) redeem(text string) (string, bool) {
	token, ok, err := t.Redeem(context.Background(), text)
	if err != nil {
		panic(err)
	}
	return token, ok
}

func TestTickets_StandForTheirTokenOnce(t *testing.T) {
	booth, _ := ticketBooth(t, TicketConfig{})
	a, b := booth.issue(t, "phone", "token a"), booth.issue(t, "web", "token b")
	if a == b || len(a) != 43 || strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		t.Errorf("tickets %q and %q, want two of 43 characters that stand in a URL as they are", a, b)
	}
	if got, ok := booth.redeem(a); !ok || got != "token a" {
		t.Errorf("got %q, %v", got, ok)
	}
	if got, ok := booth.redeem(a); ok || got != "" {
		t.Errorf("the second time: got %q, %v", got, ok)
	}
	if got, ok := booth.redeem(b); !ok || got != "token b" {
		t.Errorf("the other: got %q, %v", got, ok)
	}
	if n := booth.Count(); n != 0 || len(booth.devices) != 0 || booth.bytes != 0 || booth.byAge.Len() != 0 {
		t.Errorf("after all were redeemed: %d tickets, %d devices, %d bytes", n, len(booth.devices), booth.bytes)
	}
}

func TestTickets_OfManyWhoRedeemOneGetsIt(t *testing.T) {
	booth, _ := ticketBooth(t, TicketConfig{})
	for range 100 {
		text := booth.issue(t, "phone", "token")
		var got atomic.Int32
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if _, ok := booth.redeem(text); ok {
					got.Add(1)
				}
			})
		}
		all.Wait()
		if n := got.Load(); n != 1 {
			t.Fatalf("%d redeemed one ticket", n)
		}
	}
}

func TestTickets_EndAfterHalfAMinute(t *testing.T) {
	booth, hand := ticketBooth(t, TicketConfig{})
	a, b := booth.issue(t, "phone", "a"), booth.issue(t, "web", "b")
	hand.Advance(TicketLife - 1)
	if _, ok := booth.redeem(a); !ok {
		t.Error("refused before its time")
	}
	hand.Advance(1)
	if got, ok := booth.redeem(b); ok {
		t.Errorf("redeemed %q after its time", got)
	}
}

func TestTickets_AreNotToldFromWhatIsNone(t *testing.T) {
	booth, _ := ticketBooth(t, TicketConfig{})
	text := booth.issue(t, "phone", "token")
	for _, bad := range []string{
		"", text[1:], text + "=", text + "A", text + "\n", text[:42] + "\n", strings.Repeat("A", 43), strings.Repeat("x", 1<<20),
		strings.ToUpper(text) + "", looseBits(t, text), " " + text[1:],
	} {
		if got, ok := booth.redeem(bad); ok && bad != text {
			t.Errorf("%.60q was redeemed for %q", bad, got)
		}
	}
	if _, ok := booth.redeem(text); !ok {
		t.Error("the ticket itself was refused afterwards")
	}
}

func TestTickets_NewestOfADeviceTakeThePlaceOfItsOldest(t *testing.T) {
	booth, _ := ticketBooth(t, TicketConfig{PerDevice: 3})
	other := booth.issue(t, "web", "other")
	var texts []string
	for i := range 30 { // ten times past it
		texts = append(texts, booth.issue(t, "phone", fmt.Sprint(i)))
		if n := booth.Count(); n > 4 {
			t.Fatalf("%d tickets of two devices, want at most 4", n)
		}
	}
	for i, text := range texts {
		if _, ok := booth.redeem(text); ok != (i >= 27) {
			t.Errorf("ticket %d of 30: redeemed %v", i, ok)
		}
	}
	if _, ok := booth.redeem(other); !ok {
		t.Error("another device lost its ticket")
	}
}

func TestTickets_AreBoundedAndMakeRoomWithTime(t *testing.T) {
	for name, c := range map[string]TicketConfig{"count": {Most: 10}, "bytes": {MostBytes: 10 * 100}} {
		t.Run(name, func(t *testing.T) {
			booth, hand := ticketBooth(t, c)
			token := strings.Repeat("x", 100)
			given := 0
			for i := range 100 { // ten times past it
				_, err := booth.Issue(t.Context(), holder(fmt.Sprint("d", i)), token)
				var e *push.Error
				switch {
				case err == nil:
					given++
				case !errors.As(err, &e) || e.Kind != push.KindLimited || e.Code != CodeLimited || e.After <= 0:
					t.Fatalf("got %v", err)
				}
			}
			if given != 10 || booth.Count() != 10 {
				t.Errorf("%d were given, %d are kept, want 10", given, booth.Count())
			}
			hand.Advance(TicketLife)
			booth.issue(t, "late", token)
			if n := booth.Count(); n != 1 {
				t.Errorf("%d are kept after those before have expired, want 1", n)
			}
		})
	}
}

func TestTickets_AreKeptByHashAlone(t *testing.T) {
	booth, _ := ticketBooth(t, TicketConfig{})
	text := booth.issue(t, "phone", "token")
	shown := fmt.Sprintf("%+v", booth.byAge.Front().Value)
	raw, err := ticketEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(shown, text) || strings.Contains(shown, strings.Trim(fmt.Sprint(raw), "[]")) {
		t.Error("what is kept shows the ticket")
	}
}

func TestTickets_WithoutRandomnessThereIsNone(t *testing.T) {
	booth, _ := ticketBooth(t, TicketConfig{Rand: strings.NewReader("too short")})
	if text, err := booth.Issue(t.Context(), holder("phone"), "token"); err == nil || text != "" {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := NewTickets(TicketConfig{Most: -1}); err == nil {
		t.Error("a negative limit was taken")
	}
}

// FuzzTickets shows whatever comes: only what was issued is redeemed, and once.
func FuzzTickets(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat("A", 43))
	f.Add(strings.Repeat("_", 43) + "\n")
	f.Add("eyJhbGciOiJIUzI1NiIsImtpZCI6ImstaHMifQ.e30.AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		booth, _ := ticketBooth(t, TicketConfig{})
		issued := []string{booth.issue(t, "phone", "a"), booth.issue(t, "web", "b")}
		if got, ok := booth.redeem(text); ok && !slices.Contains(issued, text) {
			t.Fatalf("%q was redeemed for %q", text, got)
		}
		for _, known := range issued {
			// A character more, less or other is another ticket.
			for _, bad := range []string{known + text[:min(1, len(text))] + "A", "x" + text + known, known[:42]} {
				if _, ok := booth.redeem(bad); ok && bad != known {
					t.Fatalf("%q was redeemed for %q", bad, known)
				}
			}
			if _, ok := booth.redeem(known); !ok {
				t.Fatalf("%q was refused after %q", known, text)
			}
		}
	})
}

func BenchmarkTickets(b *testing.B) {
	booth, hand := ticketBooth(b, TicketConfig{})
	token := strings.Repeat("x", 400)
	b.ReportAllocs()
	for b.Loop() {
		text := booth.issue(b, "phone", token)
		hand.Advance(time.Millisecond)
		if _, ok := booth.redeem(text); !ok {
			b.Fatal("refused")
		}
	}
}
