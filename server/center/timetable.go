package center

import (
	"time"
	_ "time/tzdata" // time zones are the same on every machine, whatever is installed there

	"github.com/robfig/cron/v3"

	"carillon/server/push"
)

// timetable says when a task recurs: by the clocks on the walls of a time zone.
type timetable struct {
	schedule cron.Schedule
	location *time.Location
}

var cronFields = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// newTimetable reads a line of cron, in UTC.
func newTimetable(line string) (*timetable, error) {
	s, err := cronFields.Parse(line)
	if err != nil {
		return nil, err
	}
	if _, every := s.(cron.ConstantDelaySchedule); every {
		return nil, push.Errorf(push.KindInvalid, "invalid_request", "@every is no time of day")
	}
	t := &timetable{schedule: s, location: time.UTC}
	if len(t.after(push.Milli(time.Unix(0, 0)), 1)) == 0 {
		return nil, push.Errorf(push.KindInvalid, "invalid_request", "such a day never comes")
	}
	return t, nil
}

// isZone reports whether there is a time zone of that name. "Local" is none: it is another one on each machine.
func isZone(name string) bool {
	_, err := time.LoadLocation(name)
	return err == nil && name != "Local" && name != ""
}

// zone has the timetable go by a time zone; an unknown one, and none, is UTC.
func (t *timetable) zone(name string) {
	if isZone(name) {
		t.location, _ = time.LoadLocation(name)
	}
}

// after returns the next times after a moment, at most n. It goes from one reading of the clocks to the next, as if they were never changed, and then
// finds out when they show it: so a reading that is skipped when clocks go forward comes as much later, and one that comes twice counts once.
func (t *timetable) after(moment push.MilliTime, n int) (times []push.MilliTime) {
	at := moment.Time().In(t.location)
	shown := time.Date(at.Year(), at.Month(), at.Day(), at.Hour(), at.Minute(), at.Second(), 0, time.UTC)
	shown = shown.Add(-3 * time.Hour) // clocks may have gone back: what they show now may have been shown before
	last := moment
	for len(times) < n {
		if shown = t.schedule.Next(shown); shown.IsZero() {
			break
		}
		next := push.Milli(time.Date(shown.Year(), shown.Month(), shown.Day(), shown.Hour(), shown.Minute(), 0, 0, t.location))
		if next > last {
			times, last = append(times, next), next
		}
	}
	return times
}
