package submit

// OnStep lets a test end the worker between two steps of a submission.
func (s *Submitter) OnStep(f func(name string)) { s.step = f }
