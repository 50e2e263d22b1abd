package center

import (
	"strings"
	"testing"
	"time"

	"carillon/server/push"
)

func TestTimetable_WhenClocksAreChanged(t *testing.T) {
	for _, c := range []struct{ line, after, want string }{
		{"30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T03:30:00+02:00 2026-03-30T02:30:00+02:00"},        // 02:30 is skipped
		{"0 * * * *", "2026-03-29T00:10:00Z", "2026-03-29T03:00:00+02:00 2026-03-29T04:00:00+02:00"},         // and comes no second time where it is 03:00 by itself
		{"30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T02:30:00+01:00 2026-10-26T02:30:00+01:00"},        // 02:30 comes twice
		{"*/30 * * * *", "2026-10-24T23:40:00Z", "2026-10-25T02:00:00+01:00 2026-10-25T02:30:00+01:00"},      // so does what is more frequent
		{"30 1 25 10 *", "2026-10-25T00:10:00Z", "2027-10-25T01:30:00+02:00 2028-10-25T01:30:00+02:00"},      // what has been is not taken again
		{"30 2 * * *", "2026-10-25T00:40:00Z", "2026-10-25T02:30:00+01:00 2026-10-26T02:30:00+01:00"},        // between the two
		{"0 9 * * 1", "2026-11-27T12:00:00Z", "2026-11-30T09:00:00+01:00 2026-12-07T09:00:00+01:00"},         // an ordinary Monday
		{"@weekly", "2026-11-27T12:00:00Z", "2026-11-29T00:00:00+01:00 2026-12-06T00:00:00+01:00"},           // Sundays
		{"59 23 31 12 *", "2026-12-31T22:59:00.001Z", "2027-12-31T23:59:00+01:00 2028-12-31T23:59:00+01:00"}, // strictly after
	} {
		table, err := newTimetable(c.line)
		if err != nil {
			t.Fatal(err)
		}
		table.zone("Europe/Berlin")
		after, err := time.Parse(time.RFC3339, c.after)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, at := range table.after(push.Milli(after), 2) {
			got = append(got, at.Time().In(table.location).Format(time.RFC3339))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s after %s: got %v, want %s", c.line, c.after, got, c.want)
		}
	}
}
