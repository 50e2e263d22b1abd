package register_test

import (
	"errors"
	"testing"

	"carillon/server/push"
	"carillon/server/register"
)

func TestSucceed(t *testing.T) {
	type seat = register.Seat
	for _, tc := range []struct {
		name    string
		comes   seat
		own     *seat // nil: there is none that counts
		row     push.SessionEpoch
		refused string
	}{
		{name: "a client that names nothing", own: &seat{Epoch: 5}},
		{name: "a client that names nothing, and nobody is there"},
		{name: "what a client names, and nobody is there", comes: seat{Row: 5}, row: 5},
		{name: "the one that is there", comes: seat{Row: 5}, own: &seat{Epoch: 5}, row: 5},
		{name: "one that has its own row", comes: seat{Row: 5}, own: &seat{Epoch: 5, Row: 3}, row: 3},
		{name: "the first of the row", comes: seat{Row: 3}, own: &seat{Epoch: 5, Row: 3}, row: 3},
		{name: "one amid the row", comes: seat{Row: 4}, own: &seat{Epoch: 5, Row: 3}, row: 3},
		{name: "one before the row", comes: seat{Row: 2}, own: &seat{Epoch: 5, Row: 3}, refused: "replaced"},
		{name: "one before another client's", comes: seat{Row: 4}, own: &seat{Epoch: 5}, refused: "replaced"},
		{name: "one that a register lost, later than the one there", comes: seat{Row: 6}, own: &seat{Epoch: 5, Row: 3}, row: 6},

		{name: "anew, and nobody is there", comes: seat{Epoch: 5, Row: 3}, row: 3},
		{name: "anew, the same", comes: seat{Epoch: 5, Row: 3}, own: &seat{Epoch: 5, Row: 3}, row: 3},
		{name: "anew, an older one is there", comes: seat{Epoch: 5, Row: 3}, own: &seat{Epoch: 4}, row: 3},
		{name: "anew, its client went on", comes: seat{Epoch: 5}, own: &seat{Epoch: 7, Row: 5}, refused: "continued"},
		{name: "anew, its client went on twice", comes: seat{Epoch: 5, Row: 3}, own: &seat{Epoch: 7, Row: 3}, refused: "continued"},
		{name: "anew, another client came", comes: seat{Epoch: 5}, own: &seat{Epoch: 7}, refused: "replaced"},
		{name: "anew, another client came and went on", comes: seat{Epoch: 5}, own: &seat{Epoch: 7, Row: 6}, refused: "replaced"},
	} {
		row, err := register.Succeed(tc.comes, tc.own)
		code := ""
		if e := (*push.Error)(nil); errors.As(err, &e) && e.Kind == push.KindConflict {
			code = e.Code
		}
		if row != tc.row || code != tc.refused || err != nil && code == "" {
			t.Errorf("%s: got row %d, %v, want %d, %q", tc.name, row, err, tc.row, tc.refused)
		}
	}
}

func TestOrder_ContinuesOnlyWithinTheRow(t *testing.T) {
	phone, web := register.Key{Device: "phone"}, register.Key{Device: "web"}
	for _, tc := range []struct {
		by   register.Session
		end  push.SessionEpoch
		want bool
	}{
		{register.Session{Key: phone, Epoch: 7, Row: 5}, 5, true},
		{register.Session{Key: phone, Epoch: 7, Row: 5}, 6, true},
		{register.Session{Key: phone, Epoch: 7, Row: 5}, 4, false},
		{register.Session{Key: phone, Epoch: 7}, 5, false},
		{register.Session{Key: web, Epoch: 7, Row: 5}, 5, false}, // which a session policy made room for
	} {
		o := register.Order{Key: phone, Epoch: 6, By: tc.by}
		if got := o.Continues(tc.end); got != tc.want {
			t.Errorf("session %d for the sake of %+v: got %v, want %v", tc.end, tc.by, got, tc.want)
		}
	}
}
