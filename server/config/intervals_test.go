package config

import (
	"slices"
	"testing"
	"time"
)

func TestParseIntervals_ReadsWhatItWrites(t *testing.T) {
	got, err := parseIntervals("ws=30s, tcp/android=4m,*/ios=90s,poll=20s")
	if err != nil {
		t.Fatal(err)
	}
	want := []Interval{{"ws", "", 30 * time.Second}, {"tcp", "android", 4 * time.Minute}, {"", "ios", 90 * time.Second}, {"poll", "", 20 * time.Second}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, i := range got {
		if again, err := parseIntervals(i.String()); err != nil || !slices.Equal(again, []Interval{i}) {
			t.Errorf("%v reads as %v (%v)", i, again, err)
		}
	}
}

func TestParseIntervals_RefusesWhatMeansNothing(t *testing.T) {
	for _, s := range []string{
		"ws", "ws=", "=30s", "ws=30", "ws=500ms", "ws=2h", "poll=61s", "pigeon=1m", "ws/toaster=1m", "ws/=1m", "*=1m", "/web=1m", "ws=1m,ws=2m",
	} {
		if got, err := parseIntervals(s); err == nil {
			t.Errorf("%q reads as %v", s, got)
		}
	}
}

func TestParseOrigin_TakesNoPath(t *testing.T) {
	for s, good := range map[string]bool{
		"https://b.example.com": true, "http://10.0.0.2:8080": true, "https://[::1]:8443": true,
		"b.example.com": false, "wss://b.example.com": false, "https://": false, "https://b.example.com/connect": false, "https://u@b": false,
	} {
		if err := parseOrigin(s); (err == nil) != good {
			t.Errorf("%q: %v", s, err)
		}
	}
}
